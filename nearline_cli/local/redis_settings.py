"""The Redis that services on this machine use: bundled, configured or named by an option."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from nearline.errors import SettingsError
from nearline_cli.local.ports import port_after


def bundled_redis_port(
    port: int, redis_port: int | None, redis: str = "", *, no_redis: bool = False
) -> int | None:
    """Returns the port of the bundled Redis, or None if it should not be started.

    Args:
        port: The router's.
        redis_port: Port chosen for Redis. If None, the fourth after the router's.
        redis: URL of a Redis to use instead. Optional.
        no_redis: Whether to run without Redis.
    Raises:
        SettingsError: Two of these exclude each other, or `redis` is not a valid URL.
    """
    if no_redis and (redis or redis_port is not None):
        raise SettingsError("--no-redis excludes --redis and --redis-port; leave one out")
    if redis and redis_port is not None:
        raise SettingsError(
            "--redis-port is for the bundled Redis, but --redis names another; leave one out"
        )
    if redis:
        check_redis(redis)
    if redis or no_redis or (redis_port is None and configured_redis()):
        return None
    return port_after(port, "redis", redis_port)


def configured_redis() -> str:
    """Returns the first Redis URL in the settings of the services, or an empty string."""
    return next(filter(None, _redis_settings().values()), "")


def redis_environ() -> Mapping[str, str]:
    """Returns variables that pass the configured Redis to services whose settings name none."""
    url = configured_redis()
    lacking = [section for section, own in _redis_settings().items() if not own]
    return {f"NEARLINE_{section.upper()}_REDIS": url for section in lacking} if url else {}


def separate_redis() -> Mapping[str, str]:
    """Returns the Redis of users and of caches, by setting, if the settings name others."""
    found = {}
    for name in ("redis_users", "redis_cache"):
        with contextlib.suppress(SettingsError):
            if url := next(filter(None, _redis_settings(name).values()), ""):
                found[name] = url
    return found


def _redis_settings(setting: str = "redis") -> Mapping[str, str]:
    """Returns a setting of each service that has it, by section."""
    from nearline.settings import load_from_process
    from nearline_cli.local.service_settings import SETTINGS, settings_class

    named = {}
    for _, module, name in SETTINGS:
        try:
            kind = settings_class(module, name)
        except ImportError:
            continue  # Not installed here, so it does not run here.
        if setting in kind.model_fields:
            named[kind.section] = str(getattr(load_from_process(kind, ()), setting, ""))
    return named


def check_redis(url: str) -> None:
    """Raises SettingsError if the services could not parse this URL."""
    with contextlib.suppress(ImportError):
        from retrieval.redis_client.connection import connect

        connect(url)
