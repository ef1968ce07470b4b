"""Milvus servers of a test session; each kind is started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.milvus.network_namespace import NAMED
from tests.milvus.servers import KINDS, Absent, Server, one_start_at_a_time

# Fixtures that give the address of each kind.
SERVERS = {"lite": "lite_uri", "2.3.5": "standalone_uri"}


def servers() -> list[str]:
    """Returns the servers to test: the named addresses, or else each kind of server."""
    return [one for one in os.environ.get(NAMED, "").split(",") if one] or list(SERVERS)


def address_of(server: str, request: pytest.FixtureRequest) -> str:
    """Returns the address of one of `servers`; starts it if needed."""
    uri: str = request.getfixturevalue(SERVERS[server]) if server in SERVERS else server
    return uri


def _running(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    try:
        server = KINDS[kind](tmp_path_factory.mktemp("milvus"))
    except Absent as reason:
        pytest.skip(f"Milvus {kind}: {reason}")
    try:
        with one_start_at_a_time(kind):
            server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def lite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Returns a running Milvus Lite; skips if it is not installed."""
    yield from _running("lite", tmp_path_factory)


@pytest.fixture(scope="session")
def standalone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Returns a running Milvus 2.3.5; skips if it is not installed."""
    yield from _running("2.3.5", tmp_path_factory)


@pytest.fixture(scope="session")
def lite_uri(lite_server: Server) -> str:
    """Returns the address of a Milvus Lite; skips if it is not installed."""
    return lite_server.uri


@pytest.fixture(scope="session")
def standalone_uri(standalone_server: Server) -> str:
    """Returns the address of a Milvus 2.3.5; skips if it is not installed."""
    return standalone_server.uri


@pytest.fixture(scope="session", params=servers())
def milvus_uri(request: pytest.FixtureRequest) -> str:
    """Returns the address of each Milvus in turn; skips those that cannot be had.

    NEARLINE_TEST_MILVUS names servers that are asked in their place, with commas.
    """
    return address_of(request.param, request)
