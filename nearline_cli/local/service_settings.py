"""The settings classes of all services, and a check of them before any service starts."""

from __future__ import annotations

import importlib

from nearline.settings import Settings, load_from_process

# Module that runs a service, and its settings class.
SETTINGS = (
    ("embedding", "embedding.settings", "EmbeddingSettings"),
    ("retrieval", "retrieval.settings", "RouterSettings"),
    ("retrieval.shard_server", "retrieval.settings", "ShardSettings"),
    ("generation", "generation.settings", "GenerationSettings"),
    ("index_builder", "index_builder.pipeline.settings", "IndexBuilderSettings"),
    ("index_builder.maintenance", "index_builder.pipeline.maintenance_settings", "UpkeepSettings"),
    ("index_builder.ingest", "index_builder.ingest.settings", "IngestSettings"),
    ("index_builder.ingest.worker", "index_builder.ingest.settings", "WorkerSettings"),
)


def settings_class(module: str, name: str) -> type[Settings]:
    """Returns the settings class of a service."""
    kind: type[Settings] = getattr(importlib.import_module(module), name)
    return kind


def check_settings() -> None:
    """Validates the environment and the settings file for every service.

    Raises:
        SettingsError: A service would fail to start on an unknown name or a bad value.
    """
    for _, module, name in SETTINGS:
        try:
            kind = settings_class(module, name)
        except ImportError:
            continue  # Not installed here, so it does not run here.
        load_from_process(kind, ())
