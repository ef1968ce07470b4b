"""A shard with live changes answers like one built from the resulting documents."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nearline.contract import AttributeValue, HitLevel, SearchMode
from nearline.filter_text import parse_filter
from nearline.filters import Filter, admits
from retrieval.changelog.records import ChangeEntry
from retrieval.live import delta as delta_module, live_segment as store_module
from retrieval.live.delta import LiveDelta
from retrieval.live.vectors import LiveVectors
from retrieval.protocols.shard import ShardOptions, ShardQueries
from tests.retrieval.live.base_shards import DIM, EPOCH, Base, Hit, Log, base_of, exact_scores, hits
from tests.retrieval.live.live_documents import (
    FAR,
    NAMES,
    document,
    same,
    snapshot_documents,
    stored,
)
from tests.retrieval.small_snapshots import Document
from tests.scale import scaled

PAST = 1_000_000
FILTERS: list[Filter | None] = [
    None,
    parse_filter("kind = a"),
    parse_filter("kind != a AND year < 2002"),
    parse_filter("tags = x OR price > 1.5"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base_of(tmp_path_factory.mktemp("base"), snapshot_documents())


def dense(
    there: Mapping[str, Document], query: np.ndarray, k: int, ask: Filter | None
) -> list[Hit]:
    scored = []
    for one in there.values():
        if ask is None or admits(ask, one.attributes):
            scores = exact_scores(query, one.vectors).tolist()
            scored += [(score, one.id, chunk) for chunk, score in enumerate(scores)]
    return sorted(scored, key=lambda hit: (-hit[0], *hit[1:]))[:k]


def lexical(
    base: Base, there: Mapping[str, Document], query: str, k: int, ask: Filter | None
) -> list[Hit]:
    card, vocabulary = base.manifest.lexical, base.vocabulary
    assert vocabulary is not None
    n = {word: count for word, count in vocabulary.terms(query)}
    idf = {w: np.log(1 + (card.chunks - n[w] + 0.5) / (n[w] + 0.5)) for w in n}
    scored = []
    for one in there.values():
        if ask is not None and not admits(ask, one.attributes):
            continue
        for chunk, (start, end) in enumerate(one.spans()):
            words = vocabulary.words(f"{one.title} {one.text[start:end]}")
            norm = card.k1 * (1 - card.b + card.b * len(words) / card.mean_length)
            total = np.float32(0)
            for word, times in Counter(vocabulary.words(query)).items():
                f = words.count(word)
                total += np.float32(times) * np.float32(idf[word] * (f / (f + norm)))
            if total > 0:
                scored.append((float(total), one.id, chunk))
    return sorted(scored, key=lambda hit: (-hit[0], *hit[1:]))[:k]


class Changes(RuleBasedStateMachine):
    """Any sequence of changes agrees with a dictionary."""

    base: Base

    @initialize()
    def begin(self) -> None:
        self.delta: LiveDelta = self.base.delta()
        self.log = Log()
        self.there = {one.id: one for one in snapshot_documents()}
        self.versions = dict.fromkeys(self.there, 0)
        self.entries: list[ChangeEntry] = []
        self.waiting: list[ChangeEntry] = []

    @rule(
        seed=st.integers(100, 150),
        name=st.sampled_from(NAMES),
        expires=st.sampled_from([None, None, None, FAR + 2, FAR + 5, PAST]),
    )
    def upsert(self, seed: int, name: str, expires: int | None) -> None:
        new = document(seed, name, expires)
        self.take(self.log.upsert(new))
        self.there[name] = new
        if expires == PAST:
            del self.there[name]

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        self.take(self.log.delete(name))
        self.there.pop(name, None)

    @rule(
        name=st.sampled_from(NAMES),
        changes=st.dictionaries(
            st.sampled_from(["kind", "year", "new"]), st.sampled_from([None, "a", 2001])
        ),
    )
    def set_attributes(self, name: str, changes: dict[str, AttributeValue]) -> None:
        # Of their kinds, as the service sees to it.
        kinds = {"kind": str, "year": int, "new": object}
        changes = {n: v for n, v in changes.items() if v is None or isinstance(v, kinds[n])}
        self.take(self.log.attributes(name, changes))
        old = self.there.get(name)
        if old is not None:
            merged: dict[str, object] = {**old.attributes, **changes}
            merged = {n: v for n, v in merged.items() if v is not None}
            self.there[name] = dataclasses.replace(old, attributes=merged)

    def take(self, entry: ChangeEntry) -> None:
        self.versions[entry.change.document_id] = entry.position
        self.entries.append(entry)
        self.waiting.append(entry)

    @rule(seconds=st.integers(0, 6))
    def expire(self, seconds: int) -> None:
        self.publish()
        now = EPOCH + timedelta(0, 0, FAR + seconds)
        due = [n for n, d in self.there.items() if d.expires and d.expires <= FAR + seconds]
        assert self.delta.expire(now) == bool(due)
        for name in due:
            del self.there[name]

    @rule()
    def replay(self) -> None:
        """Repeated changes have no effect."""
        self.publish()
        before = self.delta.stats()
        self.delta.apply(self.entries)
        assert self.delta.stats() == before

    @rule()
    def publish(self) -> None:
        self.delta.apply(self.waiting)
        self.waiting.clear()

    @invariant()
    def answers_are_those_of_the_documents(self) -> None:
        if self.waiting:
            return
        view = self.delta.view
        assert view.applied.watermark.positions == tuple(self.log.heads)
        found = stored(self.base, view)
        assert found.keys() == self.there.keys()
        for name, (one, version) in found.items():
            assert same(one, self.there[name])
            assert version == self.versions[name]
        queries = np.array([[0.3, 0.6, -0.3, 0.1], [1, 1, 1, 1]], np.float32)
        for ask in FILTERS:
            for k in (2, 50):
                options = ShardOptions(k, level=HitLevel.CHUNK, filter=ask)
                several = hits(self.base.part, view, ShardQueries(queries), options)
                assert several == [dense(self.there, query, k, ask) for query in queries]
                options = options._replace(mode=SearchMode.LEXICAL)
                texts = ShardQueries(np.empty((0, DIM), np.float32), ("pear quinces pear", "plums"))
                several = hits(self.base.part, view, texts, options)
                assert several == [
                    lexical(self.base, self.there, text, k, ask) for text in texts.texts
                ]

    def teardown(self) -> None:
        if hasattr(self, "delta"):
            self.delta.close()


@pytest.mark.parametrize("most_dead", [4, 4_096])
def test_any_sequence_of_changes_agrees_with_a_dictionary(
    base: Base, monkeypatch: pytest.MonkeyPatch, most_dead: int
) -> None:
    # Small, so that stretches are sealed and stores are cleared on the way.
    monkeypatch.setattr(store_module, "LiveVectors", partial(LiveVectors, block_rows=4))
    monkeypatch.setattr(delta_module, "_MAX_DEAD_ROWS", most_dead)

    class Here(Changes):
        pass

    Here.base = base
    case: Any = Here.TestCase
    case.settings = settings(
        deadline=None, max_examples=scaled(8, nightly=75), stateful_step_count=25
    )
    case().runTest()
