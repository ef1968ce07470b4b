"""What a delta publishes, counts and compacts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from nearline.contract import HitLevel, SearchMode
from retrieval.changelog.records import Change, ChangeKind
from retrieval.index.vectors.vector_index import SearchParams
from retrieval.live import delta as delta_module
from retrieval.live.delta import LiveDelta
from retrieval.protocols.shard import ShardOptions, ShardQueries
from tests.retrieval.live.base_shards import DIM, EPOCH, Base, Log, base_of, hits
from tests.retrieval.live.live_documents import FAR, document, snapshot_documents, stored
from tests.retrieval.small_snapshots import Document


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base_of(tmp_path_factory.mktemp("base"), snapshot_documents())


def test_ineffective_changes_publish_no_view(base: Base) -> None:
    log, delta = Log(), base.delta()
    entries = [log.upsert(document(1, "x", FAR)), log.delete("y")]
    delta.apply(entries)
    view = delta.view
    delta.apply([])
    delta.apply(entries)
    assert not delta.expire(EPOCH)
    assert delta.view is view
    assert delta.expire(EPOCH + timedelta(0, 0, FAR))
    assert delta.view is not view
    assert delta.view.part is None
    delta.close()


def at(microseconds: int) -> datetime:
    return EPOCH + timedelta(0, 0, microseconds)


def names(base: Base, delta: LiveDelta) -> set[str]:
    return set(stored(base, delta.view))


@pytest.mark.parametrize("renewed_by", ["upsert", "patch"])
def test_a_renewed_document_expires_at_its_new_time_only(base: Base, renewed_by: str) -> None:
    log, delta = Log(), base.delta()
    for name in ("x", "n0"):
        # n0 expires in the snapshot, too.
        delta.apply([log.upsert(document(1, name, FAR + 50))])
        if renewed_by == "upsert":
            delta.apply([log.upsert(document(2, name, FAR + 100))])
        else:
            delta.apply([log.attributes(name, {"year": 1}, FAR + 100)])
    assert not delta.expire(at(FAR + 50)) or {"x", "n0"} <= names(base, delta)
    delta.expire(at(FAR + 99))
    assert {"x", "n0"} <= names(base, delta)
    assert delta.expire(at(FAR + 100))
    assert not {"x", "n0"} & names(base, delta)
    delta.close()


def test_a_patch_keeps_the_expiry_of_a_document(base: Base) -> None:
    log, delta = Log(), base.delta()
    delta.apply([log.upsert(document(1, "x", FAR + 50))])
    delta.apply([log.attributes(name, {"year": 1}) for name in ("x", "n3")])
    delta.apply([log.attributes(name, {"year": 2}) for name in ("x", "n3")])
    kept = stored(base, delta.view)
    assert (kept["x"][0].expires, kept["n3"][0].expires) == (FAR + 50, FAR + 3)
    delta.expire(at(FAR + 3))
    assert "n3" not in names(base, delta) and "x" in names(base, delta)
    assert delta.expire(at(FAR + 50))
    assert "x" not in names(base, delta)
    delta.close()


def test_expiries_survive_a_compaction(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_module, "_MAX_DEAD_ROWS", 20)
    log, delta = Log(), base.delta()
    delta.apply([log.upsert(document(1, "soon", FAR + 10)), log.upsert(document(2, "late", FAR))])
    delta.apply([log.attributes("late", {"year": 1}, FAR + 99)])
    before = delta.stats().rows
    rows = []
    for number in range(100):
        delta.apply([log.upsert(document(number, f"x{number % 3}"))])
        rows.append(delta.stats().rows)
    assert min(rows[1:]) < max(rows) and before, "it was compacted"
    assert delta.expire(at(FAR + 10))
    assert "soon" not in names(base, delta) and "late" in names(base, delta)
    assert delta.expire(at(FAR + 99))
    assert "late" not in names(base, delta)
    delta.close()


def test_a_document_that_expires_during_a_compaction_stays_gone(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_module, "_MAX_DEAD_ROWS", 20)
    monkeypatch.setattr(delta_module, "_DOCUMENTS_PER_CHANGE", 1)
    log, delta = Log(), base.delta()
    delta.apply([log.upsert(document(1, "soon", FAR))])
    stats, number = delta.stats(), 0
    while stats.dead_rows <= 20 or 2 * stats.dead_rows <= stats.rows:
        delta.apply([log.upsert(document(number, "x"))])
        stats, number = delta.stats(), number + 1
    # The first document was copied already.
    assert delta.expire(at(FAR))
    rows = delta.stats().rows
    while delta.stats().rows >= rows:
        rows = delta.stats().rows
        delta.apply([log.delete("never there")])
        assert "soon" not in names(base, delta)
    delta.close()


def test_views_never_change(base: Base) -> None:
    log, delta = Log(), base.delta()
    views = [delta.view]
    contents = [stored(base, delta.view).keys()]
    query = ShardQueries(np.empty((0, DIM), np.float32), ("pear plum apple quince medlar",))
    everything = ShardOptions(99, mode=SearchMode.LEXICAL, level=HitLevel.CHUNK)
    found = [hits(base.part, delta.view, query, everything)]
    for number in range(60):
        name = f"n{number % 11}"
        entry = log.delete(name) if number % 5 == 4 else log.upsert(document(number, name))
        delta.apply([entry])
        views.append(delta.view)
        contents.append(stored(base, delta.view).keys())
        found.append(hits(base.part, delta.view, query, everything))
    assert [stored(base, view).keys() for view in views] == contents
    assert [hits(base.part, view, query, everything) for view in views] == found
    delta.close()


def test_a_snapshot_without_words_and_model_takes_provided_vectors(
    tmp_path: Path,
) -> None:
    documents = [
        Document(id="a", vectors=np.eye(1, DIM, dtype=np.float32), text="", bounds=[(0, 0)])
    ]
    base = base_of(tmp_path, documents)
    assert base.vocabulary is None
    base.manifest.ClearField("embedder")
    delta = base.delta()
    change = Change(
        document_id="b",
        kind=ChangeKind.UPSERT,
        bounds=np.zeros((1, 2), np.int64),
        vectors={"": 2 * np.eye(1, DIM, dtype=np.float32)},
    )
    delta.apply([Log().entry(change)])
    found = hits(
        base.part, delta.view, ShardQueries(np.eye(1, DIM, dtype=np.float32)), ShardOptions(5)
    )
    assert found == [[(2.0, "b", 0), (1.0, "a", 0)]]
    delta.close()


def test_an_empty_shard_takes_changes() -> None:
    with TemporaryDirectory() as folder:
        base = base_of(Path(folder), [])
        delta = base.delta()
        delta.apply([Log().upsert(document(1, "a"))])
        part = delta.view.part
        assert part is not None
        found = part.index.search(np.ones((1, DIM), np.float32), 1, SearchParams())
        assert found.ids.tolist() != [[-1]]
        delta.close()
