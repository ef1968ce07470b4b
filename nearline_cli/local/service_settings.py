"""The settings classes of all services, and a check of them before any service starts."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from nearline.access.api_keys import KeyFile
from nearline.access.caller import Caller
from nearline.access.rights import Right
from nearline.errors import SettingsError, Unauthenticated
from nearline.settings import ServerSettings, Settings, load_from_process

# Module that runs a service, and its settings class.
SETTINGS = (
    ("embedding", "embedding.settings", "EmbeddingSettings"),
    ("retrieval", "retrieval.settings", "RouterSettings"),
    ("retrieval.shard_server", "retrieval.settings", "ShardSettings"),
    ("generation", "generation.settings", "GenerationSettings"),
    ("gateway", "gateway.settings", "GatewaySettings"),
    ("index_builder", "index_builder.pipeline.settings", "IndexBuilderSettings"),
    ("index_builder.maintenance", "index_builder.pipeline.maintenance_settings", "UpkeepSettings"),
    ("index_builder.ingest", "index_builder.ingest.settings", "IngestSettings"),
    ("index_builder.ingest.worker", "index_builder.ingest.settings", "WorkerSettings"),
)


def settings_class(module: str, name: str) -> type[Settings]:
    """Returns the settings class of a service."""
    kind: type[Settings] = getattr(importlib.import_module(module), name)
    return kind


def settings_of(service: str) -> type[Settings] | None:
    """Returns the settings class of the module that runs a service; None for another program."""
    found = ((place, kind) for module, place, kind in SETTINGS if module == service)
    return next((settings_class(*one) for one in found), None)


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
        settings = load_from_process(kind, ())
        if isinstance(settings, ServerSettings):
            # Imported late: it loads gRPC.
            from nearline.serving import check_security

            check_security(settings)


def gateway_scheme() -> str:
    """Returns the scheme of a gateway's URL, by the settings that it will find."""
    # Imported late: the settings of the services are slow to import.
    from gateway.settings import GatewaySettings

    return "https" if load_from_process(GatewaySettings, ()).tls_cert else "http"


def check_calls_between_services() -> None:
    """Checks that services which the environment secures can call each other.

    Raises: SettingsError: NEARLINE_TLS_CA is missing, or NEARLINE_TOKEN is not a key of a service.
    """
    shared = ServerSettings.load(environ=os.environ)
    if shared.tls_cert and not os.environ.get("NEARLINE_TLS_CA"):
        raise SettingsError(
            "services have a certificate (NEARLINE_TLS_CERT), and nothing to check those of the "
            "others with: name the authority's certificates in NEARLINE_TLS_CA"
        )
    if not shared.keys:
        return
    try:
        caller = KeyFile(Path(shared.keys)).identify(os.environ.get("NEARLINE_TOKEN", ""))
    except Unauthenticated as error:
        caller = Caller(rights={})
        reason = error.message
    else:
        reason = f"it has the right {caller.highest_right.name.lower()!r}"
    if caller.highest_right < Right.SERVICE:
        raise SettingsError(
            f"services ask each other with NEARLINE_TOKEN, which must be a key with the right "
            f"'service' ({reason}): nearline keys create --file {shared.keys} --right service "
            "--tenant '*'"
        )
