"""Cache keys: each input alone changes the key, and equal inputs give equal keys.

A key without one of its inputs serves one caller what another one asked for.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations
from random import Random
from typing import Any, cast

import pytest

from generation.memory.answer_cache import AnswerKey
from nearline import contract as c
from nearline.access.caller import Caller
from retrieval.recommend.policies import SeenRule
from retrieval.search import search_cache
from tests.project.cache_keys import CALLER, KEYS, NAMES, QUESTION, SOME_NAMES, Key, answer_key


def written(value: Any) -> str:
    """Returns a value as text; sets in order."""
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, value)))
    if isinstance(value, SeenRule):
        return repr(value._replace(kinds=cast(Any, sorted(value.kinds))))
    if isinstance(value, dict):
        return repr(sorted(value.items()))
    if isinstance(value, c.Query) and value.vector is not None:
        return f"{value.vector.dtype} {value.vector.tolist()}"
    return repr(value)


def drawn(key: Key, random: Random) -> dict[str, Any]:
    return {field: random.choice(values) for field, values in key.inputs.items()}


@pytest.mark.parametrize("name", KEYS)
def test_each_input_alone_changes_the_key(name: str) -> None:
    key, random = KEYS[name], Random(1)
    for _ in range(5):
        base = drawn(key, random)
        made = key.make(base)
        assert key.make(dict(base)) == made
        for field, values in key.inputs.items():
            keys = [key.make({**base, field: value}) for value in values]
            for value, one in zip(values, keys, strict=True):
                alike = [other for other, two in zip(values, keys, strict=True) if one == two]
                assert [written(other) for other in alike] == [written(value)], field


@pytest.mark.parametrize("name", KEYS)
def test_inputs_do_not_run_into_each_other(name: str) -> None:
    key = KEYS[name]
    base = drawn(key, Random(2))
    texts = [field for field, values in key.inputs.items() if values in (NAMES, SOME_NAMES)]
    for one, other in combinations(texts, 2):
        for between in ("", *"/:|,+-. "):
            early = {**base, one: "a", other: f"b{between}c"}
            late = {**base, one: f"a{between}b", other: "c"}
            assert key.make(early) != key.make(late), (one, other, between)


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.covers is not None])
def test_no_input_is_forgotten(name: str) -> None:
    key = KEYS[name]
    named = (
        key.covers._fields
        if hasattr(key.covers, "_fields")
        else [one.name for one in fields(key.covers)]
    )
    assert set(named) == key.inputs.keys() | key.others


def test_no_input_of_an_answer_is_forgotten() -> None:
    # text: The condensed question counts. temperature: Only answers at 0 are cached. The others
    # say where the conversation is stored, whether to bypass the cache, and what a cached answer
    # has to include.
    rest = {"text", "temperature", "session_id", "session_version", "history", "fresh"}
    rest |= {"min_watermark"}
    assert {one.name for one in fields(c.Question)} == QUESTION.keys() | rest
    # Rights are checked before; they decide whether there is an answer, and not which.
    assert {one.name for one in fields(Caller)} - {
        "rights",
        "name",
        "key",
        "through_service",
    } == CALLER.keys()
    own = {one.name for one in fields(AnswerKey)} - {"caller", "options"}
    assert KEYS["answer"].inputs.keys() == own | QUESTION.keys() | CALLER.keys()


def test_what_does_not_change_an_answer_does_not_change_its_key() -> None:
    search = drawn(KEYS["options of a cached search"], Random(3))
    required: dict[str, Any] = {
        "require_full_coverage": True,
        "snapshot_id": "s",
        "min_watermark": b"w",
        "unit": "u",
    }
    key = search_cache._options_digest
    assert key(c.SearchOptions(**search)) == key(c.SearchOptions(**search, **required))
    answer = drawn(KEYS["answer"], Random(3))
    assert answer_key({**answer, "question": "a  b?"}) == answer_key({**answer, "question": "a b"})
