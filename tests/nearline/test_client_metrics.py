"""Calls to other services are counted by service called, method and status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from nearline import Query, RetrievalClient, channel
from nearline.channel import observe_calls, observed_call
from nearline.client_metrics import observe_call
from nearline.errors import NotFound, NotReady
from nearline.internal.v1 import shard_pb2
from nearline.v1 import admin_pb2
from nearline_cli.local.processes import free_port


@pytest.fixture(autouse=True)
def observed() -> Iterator[None]:
    observe_calls(observe_call)
    observe_calls(observe_call)  # Twice counts once.
    yield
    channel._observers.clear()


def count(target: str, method: str, code: str) -> float:
    labels = {"target": target, "method": method, "code": code}
    return REGISTRY.get_sample_value("nearline_client_call_seconds_count", labels) or 0.0


@pytest.mark.parametrize(
    ("request_type", "target", "method"),
    [
        (shard_pb2.SearchShardRequest, "shard", "SearchShard"),
        (admin_pb2.GetAliasesRequest, "router", "GetAliases"),
    ],
)
def test_a_call_has_the_service_and_the_method_of_its_request(
    request_type: type, target: str, method: str
) -> None:
    before = count(target, method, "OK"), count(target, method, "NOT_FOUND")
    with observed_call(request_type):
        pass
    with pytest.raises(NotFound), observed_call(request_type):
        raise NotFound("none")
    after = count(target, method, "OK"), count(target, method, "NOT_FOUND")
    assert after == (before[0] + 1, before[1] + 1)


async def test_a_call_of_a_service_that_is_away_counts_as_unavailable() -> None:
    before = count("router", "Search", "UNAVAILABLE")
    async with RetrievalClient(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(NotReady):
            await client.search(Query(text="a"), timeout_s=5)
    assert count("router", "Search", "UNAVAILABLE") == before + 1


async def test_programs_that_only_call_count_nothing() -> None:
    channel._observers.clear()
    before = count("router", "Search", "UNAVAILABLE")
    async with RetrievalClient(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(NotReady):
            await client.search(Query(text="a"), timeout_s=5)
    assert count("router", "Search", "UNAVAILABLE") == before
