"""A brief `nearline bench preauth`: a budget that every method and route keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.commands.preauth import bench_preauth
from benchmarks.workloads.dear_payloads import json_payloads, wire_payloads
from nearline.v1 import retrieval_pb2

MEANT: Any = retrieval_pb2.UpsertItemsRequest.DESCRIPTOR


def test_payloads_are_requests_of_the_method_and_have_the_size() -> None:
    found = wire_payloads(MEANT, 9_000)
    assert all(8_900 < len(data) < 9_100 for data in found.values())
    assert len(retrieval_pb2.UpsertItemsRequest.FromString(found["items"]).items) == 4_500
    item = retrieval_pb2.UpsertItemsRequest.FromString(found["items.section"]).items[0]
    assert list(item.section) == [""] * 4_500
    search: Any = retrieval_pb2.SearchRequest.DESCRIPTOR
    nested = wire_payloads(search, 9_000)["options.filter.not"]
    assert len(nested) > 9_000


def test_bodies_are_of_the_route_and_have_the_size() -> None:
    found = json_payloads(MEANT, 9_000, lines=True)
    assert all(8_900 < len(data) < 9_100 for data in found.values())
    assert json.loads(found["items.section"]) == {"items": [{"section": [{}] * 3_001}]}
    assert set(json.loads(json_payloads(None, 9_000, lines=False)["all fields"])) > {"documents"}


def find_missed() -> dict[tuple[str, ...], dict[str, Any]]:
    made = Typer()
    made.command()(bench_preauth)
    result = CliRunner().invoke(made, ["--brief", "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    missed = [row for row in rows if row["ratio"] > 10 or row["stall_ms"] > 50]
    # The worst five are shown, whether they miss a bar or not.
    assert len(rows) >= 5 and result.exit_code == bool(missed), result.output
    return {(row["server"], row["request"], row["payload"]): row for row in missed}


@pytest.fixture(scope="module", name="missed")
def give_missed() -> list[dict[str, Any]]:
    missed = find_missed()
    # Whatever else a process does may take memory; a request that is dear is so twice.
    again = find_missed() if missed else {}
    return [row for key, row in missed.items() if key in again]


@pytest.mark.service
@pytest.mark.parametrize("server", ["retrieval", "gateway"])
def test_what_a_stranger_sends_costs_little(server: str, missed: list[dict[str, Any]]) -> None:
    assert [row for row in missed if row["server"] == server] == []
