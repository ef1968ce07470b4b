"""Addresses of Redis: what they name, and what is wrong with them."""

from __future__ import annotations

import pytest

from nearline.errors import SettingsError
from retrieval.redis_client.urls import hide_password, parse_redis_url, redis_address


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    parsed = parse_redis_url("redis+cluster://127.0.0.1:7000,localhost,[::1]:7002")
    assert parsed.kind == "cluster"
    assert parsed.nodes == [("127.0.0.1", 7000), ("localhost", 6379), ("::1", 7002)]
    assert parsed.options == {"db": 0}


def test_sentinels_watch_a_service() -> None:
    parsed = parse_redis_url(
        "redis+sentinel://user:pass%2Fword@localhost,127.0.0.1:26380/mymaster/3"
        "?sentinel_password=other"
    )
    assert (parsed.kind, parsed.service) == ("sentinel", "mymaster")
    assert parsed.nodes == [("localhost", 26379), ("127.0.0.1", 26380)]
    assert parsed.options == {"db": 3, "username": "user", "password": "pass/word"}
    assert parsed.sentinel_options == {"password": "other"}


def test_tls_is_used_for_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEARLINE_TLS_CA", "/ca.pem")
    parsed = parse_redis_url("rediss+sentinel://192.0.2.1,192.0.2.2/main?ssl_certfile=/own.pem")
    for options in (parsed.options, parsed.sentinel_options):
        assert options["ssl"] is True
        assert (options["ssl_ca_certs"], options["ssl_certfile"]) == ("/ca.pem", "/own.pem")
    assert parse_redis_url("rediss+cluster://192.0.2.1").options["ssl"] is True


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://127.0.0.1:1,127.0.0.1:2", r"several servers; use redis\+cluster://"),
        ("redis+cluster://127.0.0.1:1/3", "database '3', but a Redis Cluster has only database 0"),
        ("redis+sentinel://127.0.0.1:26379", r"append it, as in redis\+sentinel://HOST"),
        ("redis+cluster://127.0.0.1:1,,127.0.0.1:2", r"a host is empty\); use redis://HOST"),
        ("redis+cluster://127.0.0.1:port", r"is invalid .*use redis://HOST:PORT/0, redis\+cl"),
        ("redis-cluster://127.0.0.1:1", r"is invalid .*use redis://HOST:PORT/0, redis\+cl"),
        ("redis+cluster://:secret@127.0.0.1,192.0.2.1", r"unencrypted to 192\.0\.2\.1"),
        ("redis+sentinel://192.0.2.1/a?sentinel_password=secret", r"unencrypted to 192\.0\.2\.1"),
    ],
)
def test_a_wrong_address_names_the_remedy(url: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy) as caught:
        parse_redis_url(url)
    assert "secret" not in caught.value.message


def test_passwords_are_hidden_wherever_they_stand() -> None:
    url = "redis+sentinel://me:secret@a,b/s?sentinel_password=secret&sentinel_username=you"
    assert "secret" not in hide_password(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@a:1/0", "a:1"),
        ("redis://a", "a:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("redis+cluster://u:secret@a:1,b:2", "a:1,b:2"),
        ("redis+sentinel://a,b/main/0", "a,b/main/0"),
    ],
)
def test_people_read_addresses_without_passwords(url: str, shown: str) -> None:
    assert redis_address(url) == shown
