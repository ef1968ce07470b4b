"""Tests the verdicts on citations: valid, moved, changed, gone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, strategies as st

from generation.checks.citations import (
    CitationVerifier,
    check_citation,
    clean_text,
    span_matches,
    text_hash,
)
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import contract as c
from nearline.access.caller import ANONYMOUS
from nearline.access.readers import ReaderFilter
from nearline.contract import Citation, CitationCheck, Verdict
from nearline.errors import NotReady
from nearline.filters import Equals
from nearline.store.snapshot import shard_of
from retrieval.router.service import RetrievalService
from tests.retrieval.fakes import FailingShard, WordEmbedder
from tests.retrieval.service_modes import OBJECT, opened


def cite(text: str, start: int, end: int) -> Citation:
    return Citation(
        number=1,
        document_id="d",
        chunk=0,
        char_start=start,
        char_end=end,
        text_hash=text_hash(text[start:end]),
        snapshot_id="s",
    )


def test_the_hash_is_the_sha256_of_the_utf8() -> None:
    assert text_hash("größe") == hashlib.sha256("größe".encode()).hexdigest()


def test_unchanged_text_is_valid() -> None:
    text = "One. Two is here. Three."
    assert check_citation(cite(text, 5, 17), text) == CitationCheck(Verdict.VALID, 5, 17)


def test_moved_text_is_found_at_the_nearest_place() -> None:
    old = "Intro. The fact."
    found = check_citation(cite(old, 7, 16), "The fact. More words. Intro. The fact. The fact.")
    assert found == CitationCheck(Verdict.MOVED, 0, 9)
    found = check_citation(cite("x" * 30 + " The fact.", 31, 40), "The fact. " * 4)
    assert found == CitationCheck(Verdict.MOVED, 30, 39)


def test_one_changed_letter_is_changed_and_a_missing_document_is_gone() -> None:
    text = "The dose is 5 mg."
    assert check_citation(cite(text, 0, 17), "The dose is 6 mg.") == CitationCheck(Verdict.CHANGED)
    assert check_citation(cite(text, 0, 17), "") == CitationCheck(Verdict.CHANGED)
    assert check_citation(cite(text, 0, 17), None) == CitationCheck(Verdict.GONE)


@given(st.text(min_size=1, max_size=60), st.data())
def test_a_span_matches_at_its_offsets_in_any_text(text: str, data: st.DataObject) -> None:
    text = text.encode("utf-8", "ignore").decode()
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    citation = cite(text, start, end)
    assert check_citation(citation, text) == CitationCheck(Verdict.VALID, start, end)
    assert span_matches(citation, 0, text)
    if not text[start].isspace():
        # Found at any start of a word.
        other = f"zz {text[start:end]} zz"
        moved = check_citation(citation, other)
        assert moved.verdict in (Verdict.MOVED, Verdict.VALID)
        assert other[moved.start : moved.end] == text[start:end]


def test_a_span_outside_the_read_text_does_not_match() -> None:
    citation = cite("abcdef", 2, 5)
    assert span_matches(citation, 1, "bcdef")
    assert not span_matches(citation, 3, "def")
    assert not span_matches(citation, 0, "abcd")


def test_stored_text_can_neither_imitate_a_marker_nor_hide_text() -> None:
    assert clean_text("as in [12],\n  [a] and [3-5]") == "as in (12), [a] and (3-5)"
    assert clean_text("pay\u200b \u202eme\u00ad") == "pay me"


async def test_a_document_whose_shard_is_away_is_neither_valid_nor_gone(tmp_path: Path) -> None:
    text = "The dose is 5 mg."
    ids = [next(f"{n}" for n in range(99) if shard_of(f"{n}", 2) == shard) for shard in (0, 1)]
    items = [
        c.Item(id=one, text=text, vector=np.ones(2, np.float32), attributes={"n": n})
        for n, one in enumerate(ids)
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path), shards=2))
    cited = [replace(cite(text, 0, 17), document_id=one) for one in ids]
    async with opened(OBJECT, tmp_path, WordEmbedder(2)) as retriever:
        verifier = CitationVerifier(retriever, ReaderFilter())
        reply = await verifier.check(cited, "default", 10.0, ANONYMOUS, Equals("n", 0))
        # What the filter of a question excludes counts as gone.
        assert [one.verdict for one in reply.checks] == [Verdict.VALID, Verdict.GONE]
        (served,) = cast(RetrievalService, retriever).collections
        served.shards = (served.shards[0], FailingShard(NotReady("away")))
        with pytest.raises(NotReady, match=f"shard of document '{ids[1]}' does not respond"):
            await verifier.check(cited, "default", 10.0, ANONYMOUS)
        assert await verifier.all_valid(cited[:1], "default", 10.0, ANONYMOUS)
