"""Addresses of Redis: one server, a Redis Cluster, or a server that Sentinel watches."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

from nearline.channel_security import ChannelSecurity
from nearline.errors import SettingsError
from nearline.tls import is_loopback

FORMS: Final = (
    "redis://HOST:PORT/0, redis+cluster://HOST:PORT,HOST:PORT or "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE (rediss for TLS)"
)
_SEVERAL = re.compile(r"(rediss?)\+(cluster|sentinel)://(?:(.*)@)?([^/?#@]*)([^?#]*)(?:\?(.*))?")
_DEFAULT_PORTS = {"cluster": 6379, "sentinel": 26379}
# Where a password may stand in an address, also one that is not encoded as it must be.
_PASSWORD = re.compile(r"(?<=//).*(?=@)|(?<=[?&]password=)[^&]*|(?<=[?&]sentinel_password=)[^&]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A parsed address.

    kind: "server", "cluster" or "sentinel".
    nodes: Host and port of some nodes of a cluster, or of Sentinels; empty for a server.
    service: Name under which Sentinel knows the server.
    options: Arguments of connections to servers: user, password, database, TLS.
    sentinel_options: Arguments of connections to Sentinels.
    """

    kind: str
    nodes: Sequence[tuple[str, int]] = ()
    service: str = ""
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse_redis_url(url: str) -> RedisUrl:
    """Parses the address of a Redis.

    Args:
        url: "redis://host:port/0", "unix://…", "redis+cluster://host:port,host:port" or
            "redis+sentinel://host:port,host:port/service/0"; with TLS "rediss://…",
            "rediss+cluster://…" and "rediss+sentinel://…". User and password stand before the
            hosts; those of Sentinels are sentinel_username and sentinel_password after a "?". What
            it leaves out of ssl_ca_certs, ssl_certfile and ssl_keyfile are NEARLINE_TLS_CA,
            NEARLINE_TLS_CERT and NEARLINE_TLS_KEY.
    Raises: SettingsError: it is invalid, or a password would travel unencrypted.
    """
    shown = hide_password(url)
    try:
        return _parse(url, shown)
    except ValueError as error:
        # The error may name what it takes for a port, which is perhaps part of a password.
        why = f" ({error})" if shown == url else ""
        raise SettingsError(
            f"redis address {shown!r} is invalid{why}; use {FORMS}, with %2F for a / in a password"
        ) from None


def hide_password(url: str) -> str:
    """Returns an address without its passwords."""
    return _PASSWORD.sub("…", url)


def redis_address(url: str) -> str:
    """Returns where a Redis is, for people: host:port, several of them, or a path."""
    several = _SEVERAL.fullmatch(url)
    if several is not None:
        return several[4] + (several[5] if several[2] == "sentinel" else "")
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


def _parse(url: str, shown: str) -> RedisUrl:
    security = ChannelSecurity.choose("", None, os.environ)
    several = _SEVERAL.fullmatch(url)
    if several is None:
        if "," in urlsplit(url).netloc.rpartition("@")[2]:
            raise SettingsError(
                f"redis address {shown!r} names several servers; use redis+cluster://… for the "
                "nodes of a Redis Cluster, or redis+sentinel://…/SERVICE for Sentinels"
            )
        only = parse_url(url)
        _check_encrypted(only, security)
        return RedisUrl(kind="server", options=_tls_options(only, security), sentinel_options={})
    scheme, kind, user, hosts, path, query = several.groups()
    service, _, database = path.strip("/").partition("/")
    if kind == "cluster" and (database or service not in ("", "0")):
        raise SettingsError(
            f"redis address {shown!r} names database {path.strip('/')!r}, but a Redis Cluster has "
            "only database 0; leave it out"
        )
    if kind == "sentinel" and not service:
        raise SettingsError(
            f"redis address {shown!r} names no service of Sentinel; append it, as in "
            "redis+sentinel://HOST:26379/mymaster"
        )
    asked = dict(parse_qsl(query or "", keep_blank_values=True))
    sentinel_words = {
        name: asked.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    nodes = []
    options: dict[str, Any] = {}
    for host in hosts.split(","):
        if not host.strip():
            raise ValueError("a host is empty")
        login = f"{user}@" if user else ""
        words = f"?{urlencode(asked)}" if asked else ""
        database = database if kind == "sentinel" else "0"
        options = dict(parse_url(f"{scheme}://{login}{host.strip()}/{database or 0}{words}"))
        _check_encrypted(options, security)
        if sentinel_words["password"]:
            _check_encrypted({**options, "password": sentinel_words["password"]}, security)
        nodes.append((options["host"], options.get("port", _DEFAULT_PORTS[kind])))
    options = _tls_options(options, security)
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    if scheme == "rediss":
        options["ssl"] = True
    sentinel_options = {name: one for name, one in options.items() if name.startswith("ssl")}
    sentinel_options |= {name: value for name, value in sentinel_words.items() if value}
    return RedisUrl(
        kind=kind,
        nodes=nodes,
        service=unquote(service),
        options=options,
        sentinel_options=sentinel_options,
    )


def _tls_options(options: Any, security: ChannelSecurity) -> dict[str, Any]:
    """Adds the files of TLS that an address leaves out."""
    if "connection_class" not in options or "path" in options:
        return dict(options)
    files = security.tls
    defaults = {
        "ssl_ca_certs": files.authorities or None,
        "ssl_certfile": files.certificate or None,
        "ssl_keyfile": files.key or None,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }
    return defaults | dict(options)


def _check_encrypted(options: Any, security: ChannelSecurity) -> None:
    """Raises SettingsError if a password would travel unencrypted to another machine."""
    if "connection_class" in options or not options.get("password") or security.insecure:
        return
    host = options.get("host", "localhost")
    if not is_loopback(host):
        raise SettingsError(
            f"the password of Redis would travel unencrypted to {host}: use "
            "rediss://, or set NEARLINE_INSECURE=true if a network of your own protects it"
        )
