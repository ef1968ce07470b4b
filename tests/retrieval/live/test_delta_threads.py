"""During changes and graph builds, every search sees one consistent state."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from nearline.contract import HitLevel, PayloadField, SearchMode
from nearline.filters import Equals
from retrieval.index.vectors.faiss_index import use_one_thread
from retrieval.live.delta import LiveDelta
from retrieval.live.vectors import BLOCK_ROWS, LiveVectors
from retrieval.protocols.shard import ShardOptions, ShardQueries
from tests.retrieval.live.base_shards import Base, Log, base_of, hits
from tests.retrieval.small_snapshots import Document

NAMES = [f"n{number:02}" for number in range(30)]
QUERY = np.array([[1, 0, 0, 0]], np.float32)


def document(name: str, generation: int) -> Document:
    """Creates a document whose every field contains its generation."""
    return Document(
        id=name,
        vectors=np.array([[generation, 1, 0, 0]], np.float32),
        text=f"word generation{generation}",
        bounds=[(0, len(f"word generation{generation}"))],
        attributes={"year": generation},
    )


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return base_of(tmp_path, [document(name, 0) for name in NAMES])


def check(base: Base, delta: LiveDelta) -> int:
    """Checks one view in every way; returns its generation."""
    view = delta.view
    generation = max(view.applied.watermark.positions)
    wanted = [(float(generation), name, 0) for name in NAMES]
    options = ShardOptions(100, level=HitLevel.CHUNK)
    assert hits(base.part, view, ShardQueries(QUERY), options) == [wanted]
    filtered = options._replace(filter=Equals("year", generation))
    assert hits(base.part, view, ShardQueries(QUERY), filtered) == [wanted]
    other = options._replace(filter=Equals("year", generation + 1))
    assert hits(base.part, view, ShardQueries(QUERY), other) == [[]]
    for text, count in ((f"generation{generation}", 30), (f"generation{generation + 1}", 0)):
        words = options._replace(mode=SearchMode.LEXICAL)
        found = hits(base.part, view, ShardQueries(np.empty((0, 4), np.float32), (text,)), words)
        assert len(found[0]) == count
    part, alive = (base.part, view.alive) if view.part is None else (view.part, view.part_alive)
    items = [*part.scan("", None, frozenset({PayloadField.ATTRIBUTES}), alive)]
    assert [item.id for item in items] == NAMES
    assert {item.attributes["year"] for item in items} == {generation}
    return generation


def test_searches_are_consistent_during_changes_and_graph_builds(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.live.delta._MAX_DEAD_ROWS", 500)
    monkeypatch.setattr(
        "retrieval.live.live_segment.LiveVectors",
        lambda dim, ef: LiveVectors(dim, ef, block_rows=16),
    )
    log, delta = Log(), base.delta()
    # One partition, so that a position tells the generation.
    monkeypatch.setattr("tests.retrieval.live.base_shards.partition_of", lambda _: 0)
    errors: list[BaseException] = []
    seen: set[int] = set()
    ended = threading.Event()

    def search() -> None:
        use_one_thread()
        try:
            while not ended.is_set():
                seen.add(check_in_thirties(base, delta))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    generation = 0
    while (generation < 150 or len(seen) < 20) and not errors:
        generation += 1
        first = 30 * (generation - 1)
        entries = [log.upsert(document(name, first + 30)) for name in NAMES]
        assert entries[-1].position == first + 30
        delta.apply(entries)
    ended.set()
    for thread in threads:
        thread.join()
    delta.close()
    assert errors == []
    assert check_in_thirties(base, delta) == generation * 30


def check_in_thirties(base: Base, delta: LiveDelta) -> int:
    generation = check(base, delta)
    assert generation % 30 == 0
    return generation


def test_full_blocks_are_sealed_automatically(base: Base, rng: np.random.Generator) -> None:
    log, delta = Log(), base.delta()
    matrix = rng.standard_normal((BLOCK_ROWS + 100, 4)).astype(np.float32)
    text = Document(id="", vectors=matrix[:1], text="", bounds=[(0, 0)])
    published = threading.Event()
    publish = delta._publish

    def tell() -> None:
        publish()
        if delta._segment.vectors.blocks[0].graph is not None:
            published.set()

    assert delta._graph_builder is not None
    delta._graph_builder._sealed = tell
    entries = []
    for number, vector in enumerate(matrix):
        text.id, text.vectors = f"x{number}", vector[None]
        entries.append(log.upsert(text))
    delta.apply(entries)
    before = delta.view
    assert published.wait(60)
    view = delta.view
    assert view.applied == before.applied
    queries = matrix[:50]
    assert before.part is not None
    assert view.part is not None
    flat = before.part.index.search(queries, 10)
    graph = view.part.index.search(queries, 10)
    assert np.array_equal(flat.ids[:, 0], graph.ids[:, 0])
    assert np.mean([len({*a} & {*b}) for a, b in zip(flat.ids, graph.ids, strict=True)]) > 9.5
    delta.close()


def test_close_cancels_a_running_build(base: Base, rng: np.random.Generator) -> None:
    delta = base.delta()
    log = Log()
    one = Document(id="", vectors=np.ones((1_000, 4), np.float32), text="", bounds=[(0, 0)] * 1_000)
    entries = []
    for number in range(80):
        one.id = f"x{number}"
        one.vectors = rng.standard_normal((1_000, 4)).astype(np.float32)
        entries.append(log.upsert(one))
    delta.apply(entries)
    delta.close()
    assert not any(thread.name == "seal-0" for thread in threading.enumerate())
    # Changes still apply; nothing is sealed any more.
    delta.apply([log.delete("x3")])
    assert not any(thread.name == "seal-0" for thread in threading.enumerate())


def test_a_closed_delta_is_freed_with_its_last_reference(base: Base) -> None:
    delta = base.delta()
    delta.apply([Log().upsert(document("a", 1))])
    delta.close()
    delta.close()
    gone = weakref.ref(delta)
    del delta
    assert gone() is None
