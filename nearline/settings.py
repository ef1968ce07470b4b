"""Settings of a service: argument > environment > file > default, immutable once loaded."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearline.errors import SettingsError

ENV_PREFIX = "NEARLINE_"
SECTIONS = (
    "embedding",
    "gateway",
    "retrieval",
    "shard",
    "index_builder",
    "generation",
    "upkeep",
    "ingest",
    "worker",
)
# Settings that a variable without a section sets for all servers that have them.
_SHARED_SETTINGS = (
    "AUDIT_LOG",
    "CONNECTION_AGE_S",
    "FEED_BLOCK_DISK",
    "FEED_BLOCK_MEMORY",
    "FEED_BLOCK_REDIS",
    "INSECURE",
    "KEYS",
    "LIMITS",
    "METRICS_HOST",
    "METRICS_PORT",
    "READERS_ATTRIBUTE",
    "REDIS_CACHE",
    "REDIS_USERS",
    "SLOW_REQUEST_MS",
    "TLS_CERT",
    "TLS_CLIENT_CA",
    "TLS_KEY",
    "TOKEN_AUDIENCE",
    "TOKEN_CLAIMS",
    "TOKEN_ISSUER",
    "TOKEN_KEYS",
    "TRACE_ENDPOINT",
    "TRACE_SAMPLE",
)
# Variables outside any section.
SHARED_VARIABLES = (
    *_SHARED_SETTINGS,
    "ADDRESS",
    "CACHE_DIR",
    "COLLECTION",
    "CONFIG",
    "DATA",
    "KEEPER_IDLE_S",
    "LIFELINE_FD",
    "PROFILE",
    "STORE",
    "TEST_LLM",
    "TEST_MILVUS",
    "TEST_NIGHTLY",
    "TEST_NODE",
    "TLS_CA",
    "TOKEN",
)
# What Kubernetes and Docker links add for every Service whose name begins with "nearline":
# NEARLINE_SERVICE_HOST, NEARLINE_EMBEDDING_PORT=tcp://10.0.0.1:7701,
# NEARLINE_EMBEDDING_PORT_7701_TCP_ADDR and others.
_LINK_NAME = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_LINK_VALUE = re.compile(r"(?:tcp|udp|sctp)://\S+")

_log = logging.getLogger(__name__)


class Settings(BaseModel):
    """Base of a service's settings.

    A subclass names its `section`; its field `max_texts` is read from the argument
    `--max-texts`, the variable `NEARLINE_<SECTION>_MAX_TEXTS`, or the key `max_texts` of table
    `[<section>]` in the file. A few, such as NEARLINE_TLS_CERT, need no section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    section: ClassVar[str]
    # Settings of earlier releases, and what to use instead. They are ignored with a warning.
    retired: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> Self:
        """Resolves the settings once.

        Args:
            arguments: Values by field name; they win.
            environ: The environment. If None, no variables are read.
            file: TOML file with a table per section. If None, no file is read.
        Raises: SettingsError: an unknown key (names the nearest known one), or an invalid value.
        """
        merged: dict[str, object] = {}
        ignored: set[str] = set()
        for origin, values in (
            (f"file {file}", _from_file(file, cls.section)),
            ("environment", _shared(environ or {}, cls)),
            ("environment", _from_environ(environ or {}, cls.section)),
            ("arguments", dict(arguments or {})),
        ):
            for key, value in values.items():
                if key in cls.retired:
                    ignored.add(f"{cls.section}.{key} ({cls.retired[key]})")
                elif key in cls.model_fields:
                    merged[key] = value
                else:
                    raise SettingsError(_unknown(key, cls, origin))
        if ignored:
            _note_retired(tuple(sorted(ignored)))
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise SettingsError(
                f"setting {cls.section}.{name} = {first['input']!r}: {first['msg']}; "
                f"set --{name.replace('_', '-')} or "
                f"{ENV_PREFIX}{cls.section.upper()}_{name.upper()}"
            ) from error


SettingsT = TypeVar("SettingsT", bound=Settings)


class ListenerSettings(Settings):
    """Settings of every process that listens on a port, whatever it speaks."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 picks a free port.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the Prometheus endpoint; 0 disables it."
    )
    metrics_host: str = Field(
        "", description="Address of the Prometheus endpoint. Empty: that in `host`."
    )
    tls_cert: str = Field(
        "",
        description="Certificate chain (PEM) of this service; read again when it changes. "
        "Empty: no TLS.",
    )
    tls_key: str = Field("", description="Private key (PEM) of that certificate.")
    tls_client_ca: str = Field(
        "",
        description="Certificates (PEM) that sign those of clients; clients without one are then "
        "refused. Empty: clients need no certificate.",
    )
    insecure: bool = Field(
        False,
        description="Serve on an address other than loopback without TLS or without credentials.",
    )
    trace_endpoint: str = Field(
        "",
        description="Collector that takes traces by OTLP over gRPC, host:port or an https:// "
        "address. Empty: nothing is traced.",
    )
    trace_sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests that are traced; those that callers trace come on top.",
    )
    slow_request_ms: float = Field(
        500.0,
        ge=0,
        le=3_600_000,
        description="Milliseconds beyond which a request is logged as slow; 0 logs none.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )


class ServerSettings(ListenerSettings):
    """Settings that every server of gRPC has."""

    section: ClassVar[str] = "server"

    drain_s: float = Field(
        0.5, ge=0, le=600, description="Seconds between reporting NOT_SERVING and refusing calls."
    )
    grace_s: float = Field(
        10.0, ge=0, le=600, description="Seconds after that for calls in flight to finish."
    )
    max_message_bytes: int = Field(
        64 << 20,
        ge=1 << 16,
        le=1 << 30,
        description="Largest message received or sent, in bytes. Requests of methods that carry no "
        "batches have at most 4 MiB.",
    )
    max_calls: int = Field(
        1_024,
        ge=1,
        le=1_000_000,
        description="Calls that may run and wait. More are refused with RESOURCE_EXHAUSTED and the "
        "time after which to retry; requests for status and releases are always admitted.",
    )
    max_streams: int = Field(
        128,
        ge=1,
        le=1_000_000,
        description="Calls that run at once on one connection; its further calls wait in the "
        "client, and cost the server nothing.",
    )
    stream_idle_s: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="Seconds after which a stream that sends no request is ended.",
    )
    connection_age_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Seconds after which a client is asked to connect again, by which it learns of "
        "servers that joined under the same name; its calls and streams go on. 0: never.",
    )
    keys: str = Field(
        "",
        description="TOML file of API keys, made by `nearline keys create`; read again when it "
        "changes. Empty, and without --token-issuer: everybody may call.",
    )
    token_issuer: str = Field(
        "", description="Identity provider whose JSON Web Tokens are accepted: their claim iss."
    )
    token_audience: str = Field("", description="Name of this deployment there: their claim aud.")
    token_keys: str = Field(
        "", description="Its public keys (JWKS): a file, or an https address; read again in time."
    )
    token_claims: str = Field(
        "tenant,roles,rights",
        pattern=r"^[\w.-]+,[\w.-]+,[\w.-]+$",
        description="Claims with the tenant, the roles and the rights of a caller, such as "
        '"app.tenant,groups,app.rights".',
    )
    limits: str = Field(
        "",
        description='TOML file of the limits of tenants and keys, or "strict" for strict ones of '
        "Nearline's own; read again when it changes. Empty: only those of the server.",
    )
    audit_log: str = Field(
        "",
        description="File of audited calls and refusals, a JSON object per line. Empty: none.",
    )
    reuse_port: bool = Field(False, description="Let several processes listen on the same port.")

    @property
    def has_credentials(self) -> bool:
        """Whether callers are told apart."""
        return bool(self.keys or self.token_issuer)

    def security_warning(self) -> str:
        """Returns which protection the settings promise and do not give; empty if none."""
        return ""


def parse_arguments(argv: Sequence[str], settings: type[Settings]) -> dict[str, object]:
    """Reads `--field-name value` pairs (`--flag` alone is true for a boolean field).

    Raises: SettingsError: a malformed pair, or an unknown field (names the nearest known one).
    """
    values: dict[str, object] = {}
    rest = list(argv)
    while rest:
        head = rest.pop(0)
        name, separator, value = head.removeprefix("--").partition("=")
        key = name.replace("-", "_")
        if not head.startswith("--"):
            raise SettingsError(f"argument {head!r} is not of the form --name value")
        field = settings.model_fields.get(key)
        if field is None and key not in settings.retired:
            raise SettingsError(_unknown(key, settings, "arguments"))
        if not separator:
            is_flag = field is None or field.annotation is bool
            if is_flag and (not rest or rest[0].startswith("--")):
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise SettingsError(f"argument {head} needs a value")
        values[key] = value
    return values


def load_from_process(settings: type[SettingsT], argv: Sequence[str]) -> SettingsT:
    """Loads the settings of this process from argv, os.environ and the file in NEARLINE_CONFIG.

    Only `__main__` modules call this. Variables that Kubernetes sets for a Service of this name are
    ignored.

    Raises: SettingsError: see `Settings.load`; also for a NEARLINE_ variable outside any section.
    """
    environ = {name: value for name, value in os.environ.items() if not _is_link(name, value)}
    if len(environ) < len(os.environ):
        ignored = sorted(set(os.environ) - set(environ))
        _note_links(tuple(ignored))
    for name in environ:
        _check_variable(name)
    file = environ.get(f"{ENV_PREFIX}CONFIG")
    return settings.load(parse_arguments(argv, settings), environ, Path(file) if file else None)


def _from_file(file: Path | None, section: str) -> dict[str, object]:
    if file is None:
        return {}
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {error}") from error
    table = content.get(section, {})
    if not isinstance(table, dict):
        raise SettingsError(f"settings file {file}: {section} must be a table: [{section}]")
    return table


def _from_environ(environ: Mapping[str, str], section: str) -> dict[str, object]:
    prefix = f"{ENV_PREFIX}{section.upper()}_"
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in environ.items()
        if name.startswith(prefix)
    }


def _shared(environ: Mapping[str, str], settings: type[Settings]) -> dict[str, object]:
    """Returns what variables without a section set, of the settings that there are."""
    return {
        name.lower(): environ[ENV_PREFIX + name]
        for name in _SHARED_SETTINGS
        if ENV_PREFIX + name in environ and name.lower() in settings.model_fields
    }


def _is_link(name: str, value: str) -> bool:
    """Returns whether Kubernetes set a variable for a Service, rather than a user for Nearline."""
    rest = name.removeprefix(ENV_PREFIX)
    if rest == name:
        return False
    # The name of a Service called "nearline" alone leaves nothing before "PORT".
    port = rest == "PORT" or rest.endswith("_PORT")
    return bool(_LINK_NAME.fullmatch(rest) or (port and _LINK_VALUE.fullmatch(value)))


@lru_cache
def _note_links(names: tuple[str, ...]) -> None:
    """Notes once per process that variables are ignored; often before logging is configured."""
    _log.warning(
        "%d variables of a Kubernetes Service or a Docker link are ignored, for example %s",
        len(names),
        names[0],
    )


@lru_cache
def _note_retired(names: tuple[str, ...]) -> None:
    """Notes once per process which settings of earlier releases are ignored."""
    _log.warning("settings that no longer exist are ignored: %s", "; ".join(names))


def _check_variable(name: str) -> None:
    rest = name.removeprefix(ENV_PREFIX)
    if rest == name or rest in SHARED_VARIABLES:
        return
    prefixes = tuple(f"{section.upper()}_" for section in SECTIONS)
    if not rest.startswith(prefixes):
        near = difflib.get_close_matches(rest, (*prefixes, *SHARED_VARIABLES), n=1, cutoff=0.0)
        raise SettingsError(
            f"unknown variable {name}; the nearest known name is {ENV_PREFIX}{near[0]}"
            f"{'…' if near[0].endswith('_') else ''}"
        )


def _unknown(key: str, settings: type[Settings], origin: str) -> str:
    known = list(settings.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    names = f"the nearest known one is {near[0]}" if near else f"known are {', '.join(known)}"
    if origin == "environment":
        origin = f"{origin} ({ENV_PREFIX}{settings.section.upper()}_{key.upper()})"
    return f"unknown setting {settings.section}.{key} in {origin}; {names}"
