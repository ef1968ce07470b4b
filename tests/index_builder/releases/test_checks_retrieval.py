"""Which queries the recall of an index is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from index_builder.releases.checks_retrieval import check_recall
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check
from index_builder.releases.probes import Probe
from index_builder.releases.snapshot_loader import load_snapshot
from index_builder.releases.thresholds import GateLimits
from nearline import contract as c
from nearline.store.snapshot import Store
from tests.index_builder.releases.gate_snapshots import (
    FINGERPRINT,
    documents,
    publish,
    queries,
    texts,
)

QUERY = queries(1)[0]
NONE = np.empty((0, len(QUERY)), np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recall")


@pytest.fixture(scope="module")
def without_golden(store: Path) -> str:
    return publish(store, documents(texts(50)), golden=NONE)


async def measured(folder: Path, snapshot_id: str, probes: Sequence[Probe] = ()) -> Check:
    async with load_snapshot(Store(folder), "default", snapshot_id, {}) as candidate:
        return await check_recall(
            Comparison(
                candidate=candidate, live=None, alone="", limits=GateLimits(), probes=tuple(probes)
            )
        )


@pytest.mark.parametrize(
    ("probe", "used"),
    [
        (Probe(fingerprint=FINGERPRINT, query=c.Query(vector=QUERY)), True),
        (Probe(fingerprint=FINGERPRINT, query=c.Query(text="a"), vector=QUERY), True),
        (Probe(fingerprint=FINGERPRINT, audience=c.Audience(surface="home"), vector=QUERY), True),
        (Probe(fingerprint="other", query=c.Query(vector=QUERY)), False),
        (Probe(fingerprint=FINGERPRINT, query=c.Query(text="a")), False),
        (Probe(fingerprint=FINGERPRINT, query=c.Query(item_ids=("d00000",))), False),
        (Probe(fingerprint=FINGERPRINT, query=c.Query(vector=QUERY[:-1])), False),
        (Probe(fingerprint=FINGERPRINT, query=c.Query(vector=0 * QUERY)), False),
    ],
    ids=["vector", "text", "list", "model", "no-vector", "items", "dim", "zero"],
)
async def test_recorded_requests_are_used_if_their_vectors_can_be_searched(
    store: Path, without_golden: str, probe: Probe, used: bool
) -> None:
    sure = Probe(fingerprint=FINGERPRINT, query=c.Query(vector=queries(2)[1]))
    check = await measured(store, without_golden, [sure, probe])
    assert f"over {2 if used else 1} queries" in check.message


async def test_at_most_two_hundred_recorded_requests_join_as_many_golden_ones(
    store: Path,
) -> None:
    snapshot = publish(store, documents(texts(50)), golden=queries(201))
    probes = [Probe(fingerprint=FINGERPRINT, query=c.Query(vector=one)) for one in queries(201)]
    assert "over 400 queries" in (await measured(store, snapshot, probes)).message
    assert "over 200 queries" in (await measured(store, snapshot)).message


@pytest.mark.parametrize(("count", "used"), [(40, 20), (600, 200)])
async def test_without_any_request_mixtures_of_stored_vectors_are_used(
    store: Path, count: int, used: int
) -> None:
    snapshot = publish(store, documents(texts(count)), golden=NONE)
    assert f"over {used} queries" in (await measured(store, snapshot)).message
