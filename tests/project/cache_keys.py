"""Every function that makes a key of a cache, and the values that each of its inputs may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from embedding.model import EmbeddingModel, PoolingMode
from generation.memory.answer_cache import AnswerKey
from generation.memory.sessions import session_key
from generation.memory.token_budgets import BudgetScope, TokenBudgets, TokenLimits
from index_builder.documents.records import SourceCount
from index_builder.options.build_options import BuildOptions, ChunkOptions
from index_builder.pipeline.work_folder import work_key
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.filters import All, Any as AnyOf, Equals, Exists, In, Not, Range
from retrieval.cache.cached_list import ListKey
from retrieval.cache.redis_cache import redis_key
from retrieval.changelog.codec import content_digest
from retrieval.changelog.records import OWN_VECTORS, Change, ChangeKind, ChangeWrite
from retrieval.protocols.shard import ShardOptions
from retrieval.protocols.watermark import Watermark
from retrieval.recommend import cached_candidates
from retrieval.recommend.policies import (
    ExploreRule,
    FreshRule,
    Origin,
    Policy,
    Quota,
    SeenRule,
)
from retrieval.search import listing, search_cache
from retrieval.search.collection import ServedCollection
from retrieval.users.keys import session_keys, user_keys

Inputs = Mapping[str, Any]
Values = Sequence[Any]
# With separators of keys among them, so that two parts cannot be mistaken for others.
NAMES: Values = ["a", "b", "ab", "", "a:b", "a/b", "a|b", "a,b", "{a}", "a'", 'a"', "a b", "a+b"]
SOME_NAMES: Values = [name for name in NAMES if name]
# Collections, which other code checks before.
COLLECTIONS: Values = ["a", "b", "ab", "a-b"]
NUMBERS: Values = [1, 2, 12]
OPTIONAL_NUMBERS: Values = [None, *NUMBERS]
SHARES: Values = [0.0, 0.25, 0.5, 1.0]
FLAGS: Values = [False, True]
PAYLOADS: Values = [frozenset(), *(frozenset({one}) for one in c.PayloadField)]
TIMES: Values = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
ONE, TWO = Equals("a", "b"), Exists("a")
FILTERS: Values = [
    # True, 1 and 1.0 are equal in Python, but not in a filter.
    *(Equals("a", value) for value in ("1", "True", 1, 1.0, True, 2, 0, False, *TIMES)),
    *(In("a", values) for values in ((1,), (True,), ("1",), (1, 2), (12,), (1.0,))),
    *(Range("a", **{bound: 1}) for bound in ("gte", "gt", "lte", "lt")),
    *(Range("a", gte=1, lt=high) for high in (2, 2.0, 3)),
    *(ONE, TWO, Equals("ab", ""), Exists("b"), Not(ONE), Not(Not(ONE)), Not(TWO)),
    *(kind(*parts) for kind in (All, AnyOf) for parts in ((), (ONE,), (ONE, TWO), (TWO,))),
    All(AnyOf(ONE), TWO),
    All(AnyOf(ONE, TWO)),
    Not(Equals("a", True)),
    Not(Equals("a", 1)),
]
OPTIONAL_FILTERS: Values = [None, *FILTERS]


@dataclass(frozen=True, kw_only=True)
class Key:
    """A function that makes a key, and the values that each of its inputs may have.

    covers: The class whose fields the inputs are, if it is one; others: its remaining fields, which
    do not change the answer.
    """

    make: Callable[[Inputs], object]
    inputs: Mapping[str, Values]
    covers: Any = None
    others: frozenset[str] = frozenset()


class _Served:
    def __init__(self, name: str, snapshot_id: str) -> None:
        self.name, self.snapshot_id = name, snapshot_id


def served(inputs: Inputs) -> ServedCollection:
    return cast(ServedCollection, _Served(inputs["collection"], inputs["snapshot_id"]))


def without(inputs: Inputs, *names: str) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in names}


def query_of(kind: str, numbers: tuple[float, ...]) -> c.Query:
    if kind == "text":
        return c.Query(text=repr(numbers))
    return c.Query(vector=np.array(numbers, np.dtype(kind)))


SERVED = {"collection": COLLECTIONS, "snapshot_id": NAMES}
OPTIONS: Mapping[str, Values] = {
    "k": NUMBERS,
    "mode": [None, *c.SearchMode],
    "level": list(c.HitLevel),
    "payload": PAYLOADS,
    "ef_search": OPTIONAL_NUMBERS,
    "nprobe": OPTIONAL_NUMBERS,
    "exact": FLAGS,
    "explain": FLAGS,
    "filter": OPTIONAL_FILTERS,
    "grouping": [None, c.Grouping("a"), c.Grouping("b"), c.Grouping("a", 2)],
    "boosts": [
        (),
        *((c.Boost(field="a", any_of=values),) for values in (("a",), ("b",), ("a", "b"), ("ab",))),
        (c.Boost(field="b", any_of=("a",)),),
        (c.Boost(field="a", any_of=("a",)), c.Boost(field="b", any_of=("a",))),
        *((c.Boost(field="a", growth=c.Growth(pivot=one)),) for one in (1.0, 2.0)),
        (c.Boost(field="a", growth=c.Growth(top=1.0)),),
        *((c.Boost(field="a", weight=one, any_of=("a",)),) for one in (0.0, -1.0)),
        *(
            (c.Boost(field="a", decay=one),)
            for one in (
                c.Decay(scale=1.0),
                c.Decay(scale=1.0, origin=1),
                c.Decay(scale=1.0, offset=1.0),
                c.Decay(scale=1.0, decay=0.25),
            )
        ),
        *((c.Boost(field="a", decay=c.Decay(scale=2.0, shape=one)),) for one in c.DecayShape),
    ],
}
SEARCH_OPTIONS = {
    **OPTIONS,
    "min_score": [None, *SHARES],
    "diversity": SHARES,
    "dense_weight": [None, *SHARES],
    "plain_text": [False, True],
    "min_should_match": [None, *SHARES],
    "rerank": OPTIONAL_NUMBERS,
    "highlight": [None, *map(c.Highlighting, NUMBERS)],
}
QUERIES = [
    query_of(kind, numbers)
    for kind in ("text", "<f4", "<f8")
    for numbers in ((0.5,), (1.0,), (1.0, 0.5), (0.5, 1.0))
]
# Two numbers of four bytes, and one of eight with the same bytes.
QUERIES += [c.Query(vector=np.array([1.0, 0.5], "<f4").view("<f8"))]
POLICY: Mapping[str, Values] = {
    "version": NUMBERS,
    "origin": list(Origin),
    "only": OPTIONAL_FILTERS,
    "seen": [
        SeenRule(repeat, frozenset(kinds), days)
        for repeat in FLAGS
        for kinds in ("", "a", "b", "ab")
        for days in (0, 1, 2)
    ],
    "quotas": [(), (Quota("a", 1),), (Quota("b", 1),), (Quota("a", 1), Quota("b", 1))],
    "pinned": [(), ("a",), ("b",), ("ab",), ("a", "b"), ("b", "a")],
    "blocked": [frozenset(), frozenset("a"), frozenset("b"), frozenset("ab"), frozenset({"ab"})],
    "diversity": SHARES,
    "popularity_debias": [None, *SHARES],
    "fresh": [None, FreshRule("a", 1, 2), FreshRule("a", 2, 1), FreshRule("b", 1, 2)],
    "explore": [None, ExploreRule(1, 2), ExploreRule(2, 1)],
    "candidates": NUMBERS,
}
QUESTION: Mapping[str, Values] = {
    "filter": OPTIONAL_FILTERS,
    "mode": [None, *c.SearchMode],
    "max_tokens": NUMBERS,
    "documents": NUMBERS,
    "refuse": FLAGS,
    "backend": NAMES,
    "unsupported": list(c.Unsupported),
    "strictness": [None, *c.Strictness],
}
CALLER: Mapping[str, Values] = {
    "tenant": NAMES,
    "roles": [(), ("a",), ("b",), ("ab",), ("a", "b"), ("a+b",), ("",)],
}
CHANGE: Mapping[str, Values] = {
    "document_id": NAMES,
    "kind": list(ChangeKind),
    "title": NAMES,
    "text": NAMES,
    "attributes": [{}, *({"a": one} for one in ("1", 1, 1.0, True, None, [1])), {"b": 1}],
    "vectors": [(), (0.5,), (1.0,), (0.5, 1.0)],
    "expires": [None, *TIMES],
}
WRITE: Mapping[str, Values] = {"if_version": OPTIONAL_NUMBERS, "as_of_us": OPTIONAL_NUMBERS}


def answer_key(inputs: Inputs) -> str:
    options = c.Question(text="x", **{name: inputs[name] for name in QUESTION})
    caller = Caller(**{name: inputs[name] for name in CALLER})
    rest = without(inputs, *QUESTION, *CALLER)
    return AnswerKey(caller=caller, options=options, **rest).digest()


def write_digest(inputs: Inputs) -> str:
    own = inputs["vectors"]
    vectors = {OWN_VECTORS: np.array([own], np.float32)} if own else {}
    change = Change(**without(inputs, *WRITE, "vectors"), vectors=vectors)
    return content_digest([ChangeWrite(change, **{name: inputs[name] for name in WRITE})])


def counters_of(inputs: Inputs) -> tuple[str, ...]:
    limits = TokenLimits(session=1, tenant_day=1, day=1)
    return tuple(key for _, key, _ in TokenBudgets(None, limits)._counters(BudgetScope(**inputs)))


def build_key(inputs: Inputs) -> str:
    options = BuildOptions(
        store="s",
        shards=inputs["shards"],
        max_bad_rows=inputs["max_bad_rows"],
        title_only=inputs["title_only"],
        as_of=inputs["as_of"],
        chunks=ChunkOptions(
            max_tokens=inputs["max_tokens"], overlap_sentences=inputs["overlap_sentences"]
        ),
    )
    sources = [SourceCount(uri=uri, sha256=digest) for uri, digest in inputs["sources"]]
    return work_key(options, sources, inputs["reading"], inputs["fingerprint"])


KEYS: Mapping[str, Key] = {
    "cached search": Key(
        make=lambda one: redis_key(
            search_cache._key(
                served(one),
                one["query"],
                c.SearchOptions(**without(one, "collection", "snapshot_id", "query")),
            )
        ),
        inputs={**SERVED, "query": QUERIES, **SEARCH_OPTIONS},
    ),
    "options of a cached search": Key(
        make=lambda one: search_cache._options_digest(c.SearchOptions(**one)),
        inputs=SEARCH_OPTIONS,
        covers=c.SearchOptions,
        # Requirements on an answer, and who asks: what a user's history orders is never cached.
        others=frozenset(
            {
                *("require_full_coverage", "snapshot_id", "min_watermark", "unit"),
                *("user_id", "session_id", "personal", "unrecorded"),
            }
        ),
    ),
    "searches of one batch": Key(
        make=lambda one: ShardOptions(**one),
        inputs={
            **OPTIONS,
            "mode": list(c.SearchMode),
            "min_watermark": [None, Watermark("a"), Watermark("b"), Watermark("a", (1,) * 64)],
        },
        covers=ShardOptions,
    ),
    "filter": Key(make=lambda one: one["filter"], inputs={"filter": FILTERS}),
    "page of a list": Key(
        make=lambda one: listing._digest(one["filter"]), inputs={"filter": OPTIONAL_FILTERS}
    ),
    "cached candidates": Key(
        make=lambda one: redis_key(
            cached_candidates._key(
                served(one),
                cached_candidates._Variant(one["policy"], one["payload"], one["depth"]),
                one["name"],
                one["filter"],
                one["debias"],
            )
        ),
        inputs={
            **SERVED,
            "policy": NAMES,
            "payload": PAYLOADS,
            "depth": NUMBERS,
            "name": NAMES,
            "filter": OPTIONAL_FILTERS,
            "debias": [None, *SHARES],
        },
    ),
    "list in Redis": Key(
        make=lambda one: redis_key(ListKey(**one)),
        inputs=dict.fromkeys(ListKey._fields, NAMES),
        covers=ListKey,
    ),
    "policy": Key(
        make=lambda one: Policy(name="home", **one).digest,
        inputs=POLICY,
        covers=Policy,
        # Surfaces with equal rules share their lists.
        others=frozenset({"name", "digest"}),
    ),
    "answer": Key(
        make=answer_key,
        inputs={
            "collection": COLLECTIONS,
            "question": ["a", "A", "a b", "ab"],
            "snapshot_id": NAMES,
            "fingerprint": NAMES,
            "policy": NAMES,
            **CALLER,
            **QUESTION,
        },
    ),
    "owner of a conversation": Key(
        make=lambda one: session_key(
            one["collection"], Caller(one["tenant"], one["roles"]).owner, one["session_id"]
        ),
        inputs={**CALLER, "collection": COLLECTIONS, "session_id": SOME_NAMES},
    ),
    "token budgets": Key(
        make=counters_of,
        inputs={
            "collection": COLLECTIONS,
            "tenant": NAMES,
            "session_id": SOME_NAMES,
            "now": TIMES,
        },
        covers=BudgetScope,
    ),
    "user": Key(
        make=lambda one: user_keys(one["collection"], one["id"]).state,
        inputs={"collection": COLLECTIONS, "id": NAMES},
    ),
    "recent events": Key(
        make=lambda one: (
            (session_keys if one["session"] else user_keys)(one["collection"], one["id"]).recent
        ),
        inputs={"collection": COLLECTIONS, "id": NAMES, "session": FLAGS},
    ),
    "write": Key(make=write_digest, inputs={**CHANGE, **WRITE}),
    "embedding model": Key(
        make=lambda one: EmbeddingModel(name="m", folder=Path("f"), **one).fingerprint,
        inputs={
            "weights_sha256": NAMES,
            "tokenizer_sha256": NAMES,
            "pooling": list(PoolingMode),
            "dim": NUMBERS,
            "max_tokens": NUMBERS,
            "query_prompt": NAMES,
            "document_prompt": NAMES,
        },
        covers=EmbeddingModel,
        others=frozenset({"name", "folder", "pad_id"}),
    ),
    "work of a build": Key(
        make=build_key,
        inputs={
            "shards": NUMBERS,
            "max_bad_rows": NUMBERS,
            "title_only": FLAGS,
            "as_of": [None, *TIMES],
            "max_tokens": [40, 41],
            "overlap_sentences": [0, 1],
            "sources": [(), (("a", "b"),), (("b", "a"),), (("a", "b"), ("b", "a")), (("ab", ""),)],
            "reading": [(), ("a",), ("b",), ("ab",), ("a", "b")],
            "fingerprint": NAMES,
        },
    ),
}
