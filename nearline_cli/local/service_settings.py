"""The settings of every service: where they are defined, and a look at them before any starts."""

from __future__ import annotations

import importlib

from nearline.settings import Settings, load_from_process

# Module that runs a service, and the class of its settings.
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
    """Returns the class of a service's settings."""
    kind: type[Settings] = getattr(importlib.import_module(module), name)
    return kind


def check_settings() -> None:
    """Reads what the environment and the file say to every service.

    Raises: SettingsError: an unknown name or a bad value, which that service would end on.
    """
    for _, module, name in SETTINGS:
        try:
            kind = settings_class(module, name)
        except ImportError:
            # Not installed here, so it does not run here.
            continue
        load_from_process(kind, ())
