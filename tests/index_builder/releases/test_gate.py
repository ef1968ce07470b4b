"""The gate refuses bad snapshots, each for the right reason, and passes a good one."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from index_builder.evaluation.retrieval_metrics import JudgedDataset
from index_builder.releases.gate import NAMES, GateOptions, judge
from index_builder.releases.gate_report import (
    CheckOutcome,
    GateReport,
    keep_report,
    read_report,
    report_names,
)
from index_builder.releases.judgements import keep_judgements
from index_builder.releases.snapshot_loader import load_snapshot
from index_builder.releases.thresholds import set_thresholds
from nearline.errors import NotFound
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import MANIFEST, Store
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.vectors import normalise
from tests.index_builder.embedders import HashEmbedder, vector_of
from tests.index_builder.releases.gate_snapshots import (
    calm,
    documents,
    failed,
    made,
    message,
    publish,
    queries,
    texts,
)

WORDS = texts(400)
_EMBEDDERS = {"here": HashEmbedder()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    set_thresholds(Store(folder), "default", calm())
    return folder


@pytest.fixture(scope="module")
def live(store: Path) -> str:
    return publish(store, documents(WORDS), promote=True)


async def gate(store: Path, candidate: str, live: str | None, **options: object) -> GateReport:
    told = {"embedders": _EMBEDDERS, **options}
    return await judge(Store(store), "default", candidate, live, GateOptions(**told))  # type: ignore[arg-type]


async def test_a_good_snapshot_passes(store: Path, live: str) -> None:
    more = publish(store, documents([*WORDS, "something new", "and another"]))
    report = await gate(store, more, live)
    assert (failed(report), report.passed) == ([], True)
    assert [one.name for one in report.checks] == list(NAMES)
    assert made(report) >= {
        *("files", "loads", "recall", "model", "moved", "missing", "overlap", "latency"),
    }
    assert (report.requests, report.source) == (60, "golden")
    verdict = report.verdict("default/gate/reports/x-1.json", "no reason was needed")
    assert (verdict.passed, verdict.forced_because, verdict.thresholds) == (True, "", 1)


async def test_the_first_snapshot_has_only_its_own_checks(store: Path, live: str) -> None:
    report = await gate(store, live, None)
    assert report.passed and report.live_id == ""
    assert made(report) == {"files", "loads", "recall"}
    assert message(report, "overlap") == "there is no live snapshot to compare with"
    assert (await gate(store, live, live)).live_id == ""


async def test_another_model_is_refused_and_may_be_allowed(store: Path, live: str) -> None:
    # The same vectors with another fingerprint; everything else is equal.
    other = publish(store, documents(WORDS), fingerprint="other")
    report = await gate(store, other, live)
    assert failed(report) == ["model"]
    assert "nearline rollout start" in message(report, "model")
    assert "--allow-model-change" in message(report, "model")
    assert (await gate(store, other, live, allow_model_change=True)).passed


async def test_vectors_of_another_model_are_refused_despite_the_right_fingerprint(
    store: Path, live: str
) -> None:
    # Vectors of another model for the same texts; their neighbours differ as well.
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    vectors = np.stack([vector_of(one) for one in WORDS]) @ turn
    other = publish(store, documents(WORDS, vectors), golden=queries() @ turn)
    assert failed(await gate(store, other, live)) == ["moved", "overlap"]


async def test_shuffled_ids_are_refused(store: Path, live: str) -> None:
    # A tenth of the rows have the vector of another row.
    vectors = np.stack([vector_of(one) for one in WORDS])
    vectors[:40] = np.roll(vectors[:40], 1, axis=0)
    report = await gate(store, publish(store, documents(WORDS, vectors)), live, embedders={})
    assert failed(report) == ["moved"]
    assert "40 have another vector for the same text" in message(report, "moved")
    # With all rows mixed up, search results differ as well.
    vectors = np.random.default_rng(6).permutation(vectors)
    report = await gate(store, publish(store, documents(WORDS, vectors)), live, embedders={})
    assert failed(report) == ["moved", "overlap"]


async def test_ids_shuffled_with_their_texts_are_refused(store: Path, live: str) -> None:
    words = [*WORDS[1:41], WORDS[0], *WORDS[41:]]
    report = await gate(store, publish(store, documents(words)), live)
    assert failed(report) == ["moved"]
    assert "41 have the text of another document" in message(report, "moved")


async def test_rewritten_texts_are_not_shuffled_ones(store: Path, live: str) -> None:
    words = [f"{one}, revised" for one in WORDS[:100]] + WORDS[100:]
    assert (await gate(store, publish(store, documents(words)), live)).passed


async def test_missing_items_are_refused(store: Path, live: str) -> None:
    fewer = documents(WORDS)
    del fewer[::10]
    report = await gate(store, publish(store, fewer), live)
    assert failed(report) == ["missing"]
    assert "40 of 400 documents are missing" in message(report, "missing")
    assert "'d00000'" in message(report, "missing")


@pytest.mark.parametrize("promised", [1.0, 0.5])
async def test_a_search_width_with_low_recall_is_refused(
    graphs: tuple[Path, str], promised: float
) -> None:
    folder, first = graphs
    narrow = published_again(folder, first, ef_search=1, promised_recall=promised)
    report = await gate(folder, narrow, first, embedders={})
    assert failed(report) == ["recall"]
    assert "--ef-search" in message(report, "recall")
    # Regardless of the recall in its manifest.
    assert f"(the manifest says {promised:.4f})" in message(report, "recall")
    assert (await gate(folder, first, None, embedders={})).outcome("recall") is CheckOutcome.PASSED


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns a graph over random vectors, which is hard to search, and a sufficient search
    width.
    """
    folder = tmp_path_factory.mktemp("graphs")
    rows = normalise(np.random.default_rng(2).normal(size=(3_060, 32)).astype(np.float32))
    made_of = documents(texts(3_000), rows[:3_000])
    return folder, publish(folder, made_of, factory="HNSW16", ef_search=400, golden=rows[3_000:])


def published_again(
    folder: Path, snapshot_id: str, *, ef_search: int, promised_recall: float
) -> str:
    """Publishes the files of a snapshot with another manifest; returns its id."""
    store = Store(folder)
    manifest = store.manifest("default", snapshot_id)
    manifest.snapshot_id = new_snapshot_id()
    manifest.default_ef_search = ef_search
    manifest.quality.recall_at_10 = promised_recall
    place = store.snapshots_folder("default")
    shutil.copytree(place / snapshot_id, place / manifest.snapshot_id)
    (place / manifest.snapshot_id / MANIFEST).write_text(message_to_json(manifest))
    return manifest.snapshot_id


async def test_a_snapshot_with_different_results_is_refused(store: Path, live: str) -> None:
    # The same ids with entirely different texts.
    report = await gate(store, publish(store, documents(texts(800)[400:])), live)
    assert failed(report) == ["overlap"]


async def test_corrupt_files_are_refused_before_any_other_check(tmp_path: Path, live: str) -> None:
    broken = publish(tmp_path, documents(WORDS[:20]))
    path = Store(tmp_path).snapshot_folder("default", broken) / "shards/000/items.arrow"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    report = await gate(tmp_path, broken, None)
    assert failed(report) == ["files"]
    assert len(report.checks) == len(NAMES)
    assert message(report, "recall") == "its files are not intact"


async def test_a_broken_live_snapshot_does_not_block_a_candidate(
    tmp_path: Path,
) -> None:
    broken = publish(tmp_path, documents(WORDS[:20]))
    path = Store(tmp_path).snapshot_folder("default", broken) / "shards/000/items.arrow"
    path.write_bytes(b"")
    report = await gate(tmp_path, publish(tmp_path, documents(WORDS)), broken)
    assert report.passed
    assert "could not be loaded" in message(report, "overlap")


async def test_an_unknown_snapshot_is_not_judged(store: Path) -> None:
    with pytest.raises(NotFound):
        await gate(store, "20200101T000000Z-aaaaaa", None)


async def test_thresholds_of_the_store_apply(tmp_path: Path) -> None:
    first = publish(tmp_path, documents(WORDS))
    fewer = publish(tmp_path, documents(WORDS[:300]))
    store = Store(tmp_path)
    assert "missing" in failed(await gate(tmp_path, fewer, first))
    set_thresholds(store, "default", calm(max_missing=0.3))
    report = await gate(tmp_path, fewer, first)
    assert (report.passed, report.thresholds) == (True, 1)
    set_thresholds(store, "default", calm(max_missing=-1))
    report = await gate(tmp_path, fewer, first)
    assert message(report, "missing") == "switched off by the thresholds"
    assert report.verdict().thresholds == 2


async def test_judged_queries_of_the_store_are_searched(tmp_path: Path) -> None:
    first = publish(tmp_path, documents(WORDS))
    # A snapshot that lacks the relevant documents, which are few.
    kept = documents([*WORDS[:3], *(f"other {n}" for n in range(3)), *WORDS[6:]])
    store = Store(tmp_path)
    labels = JudgedDataset(
        corpus=tmp_path,
        queries={"q1": WORDS[4], "q2": WORDS[5]},
        judgements={"q1": {"d00004": 1}, "q2": {"d00005": 2}},
    )
    digest = keep_judgements(store, "default", labels)
    assert keep_judgements(store, "default", labels) == digest
    set_thresholds(store, "default", calm(judgements_sha256=digest))
    report = await gate(tmp_path, publish(tmp_path, kept), first)
    assert failed(report) == ["ndcg"]
    assert "(the live snapshot 1.0000)" in message(report, "ndcg")
    assert (await gate(tmp_path, first, None)).outcome("ndcg") is CheckOutcome.SKIPPED
    set_thresholds(store, "default", calm(judgements_sha256=digest, min_ndcg=0.9))
    assert (await gate(tmp_path, first, None)).outcome("ndcg") is CheckOutcome.PASSED
    without = await gate(tmp_path, first, None, embedders={})
    assert without.outcome("ndcg") is CheckOutcome.SKIPPED
    assert "--embedding" in message(without, "ndcg")


async def test_reports_are_numbered(store: Path, live: str) -> None:
    opened = Store(store)
    refused = publish(store, documents(WORDS[:100]))
    report = await gate(store, refused, live)
    paths = [keep_report(opened, report) for _ in range(2)]
    assert paths == [f"default/gate/reports/{refused}-{number}.json" for number in (1, 2)]
    assert set(paths) <= set(report_names(opened, "default"))
    assert read_report(opened, paths[0]) == {one.name: one.message for one in report.checks}


async def test_a_loaded_snapshot_is_released(store: Path, live: str) -> None:
    before = set(threading.enumerate())

    def searching() -> list[threading.Thread]:
        return [one for one in set(threading.enumerate()) - before if "search" in one.name]

    with pytest.raises(ZeroDivisionError):
        async with load_snapshot(Store(store), "default", live, {}):
            assert searching()
            raise ZeroDivisionError
    assert searching() == []
