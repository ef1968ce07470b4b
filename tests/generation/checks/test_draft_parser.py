"""Tests that streamed text becomes sentences with markers, however it is split."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings, strategies as st

from generation.checks.draft_parser import DraftParser, DraftSentence
from generation.checks.markers import MARKER_PATTERN, escape_markers, parse_marker
from nearline.sentences import estimate_tokens

_MARKER = re.compile(MARKER_PATTERN, re.IGNORECASE)
# Difficult parts for a parser, in any order.
SIGNS = [
    *("word", "Two words", "e.g.", "x", "9", "三分钟", "é", "a1"),
    *(" ", "\n", "\n\n", "\t", ". ", ".", "!", "。", "…", ", ", ": "),
    *(
        "[1]",
        "[2]",
        "[1, 2]",
        "[1]–[3]",
        "[9]",
        "[0]",
        "【1】",
        "[^1]",
        "[[1]]",
        "[",
        "]",
        "(",
        ")",
    ),
    *("[1](http://x.y)", "[a](b. c)", "![i](j)", "http://docs.org", "//", "`", "```", "\n```\n"),
    *("\n- ", "\n1. ", "\n# ", "| ", "x[0]", "list[1][2]", "and", " & ", "–", "\n    "),
]
TEXTS = st.lists(st.sampled_from(SIGNS), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("marker", "found"),
    [
        ("[1]", ((1,), 0)),
        ("[ 2 ]", ((2,), 0)),
        ("[1][2]", ((1, 2), 0)),
        ("[2, 1]", ((2, 1), 0)),
        ("[1; 3]", ((1, 3), 0)),
        ("[1] and [3]", ((1, 3), 0)),
        ("[1, 1]", ((1,), 0)),
        ("[1]–[3]", ((1, 2, 3), 0)),
        ("[1-3]", ((1, 2, 3), 0)),
        ("[3-1]", ((3, 1, 2), 0)),
        ("[2 to 4]", ((2, 3, 4), 0)),
        ("[4-9]", ((4, 5), 1)),
        ("[1-99999999]", ((1, 2, 3, 4, 5), 1)),
        ("[0]", ((), 1)),
        ("[9]", ((), 1)),
        ("[1, 9]", ((1,), 1)),
        ("[0, 0]", ((), 2)),
        ("[999999999]", ((), 1)),
        ("[^1]", ((1,), 0)),
        ("[[1]]", ((1,), 0)),
        ("([1], [2])", ((1, 2), 0)),
        ("[Source 1]", ((1,), 0)),
        ("[passages 1 and 2]", ((1, 2), 0)),
        ("【1】", ((1,), 0)),
        ("【1†page 9】", ((1,), 0)),
        ("【1†page 9】【2】", ((1, 2), 0)),
        ("[1](http://9.9)", ((1,), 0)),
        ("[1](http://9.9)[2]", ((1, 2), 0)),
        ("[1](http://9.9)-[3]", ((1, 2, 3), 0)),
        ("[１]", ((1,), 0)),
    ],
)
def test_markers_of_every_form_are_parsed(marker: str, found: tuple[tuple[int, ...], int]) -> None:
    match = _MARKER.fullmatch(marker)
    assert match is not None and match["marker"] is not None
    assert parse_marker(marker, 5) == found
    (draft,) = drafts(f"A fact {marker}.")
    assert draft == DraftSentence("", "A fact.", *found)
    assert drafts(f"A fact. {marker}\n") == [draft]
    assert not _MARKER.search(escape_markers(f"A fact {marker}."))


@pytest.mark.parametrize(
    "text",
    [
        f"[{'9' * 30}]",
        "x[0]",
        "argv[1]",
        "m[1][2]",
        "[a]",
        "[1.5]",
        "[-1]",
        "[x](y)",
        "`[1]`",
        "`a` `x [1]`",
    ],
)
def test_text_that_is_not_a_marker_is_kept(text: str) -> None:
    assert drafts(f"Use {text} here.") == [DraftSentence("", f"Use {text} here.", (), 0)]


WRITTEN = [
    (
        "It boils in 3 minutes. [1][2] Then stop.",
        [("It boils in 3 minutes.", (1, 2)), ("Then stop.", ())],
    ),
    ("It boils.[1] Then stop [2].", [("It boils.", (1,)), ("Then stop.", (2,))]),
    ("As [1] says, it boils.", [("As says, it boils.", (1,))]),
    ("It boils e.g. [1] here. Yes.", [("It boils e.g. here.", (1,)), ("Yes.", ())]),
    ("It boils. [1", [("It boils.", ())]),
    ("It boils. [", [("It boils.", ())]),
    ("Take list[1", [("Take list[1", ())]),
    ("水在三分钟内沸腾[1]。然后停止[2]。", [("水在三分钟内沸腾。", (1,)), ("然后停止。", (2,))]),
    ("[1] It boils.", [("It boils.", (1,))]),
    ("It boils.\n\n[1]\n\nThen stop.", [("It boils.", (1,)), ("Then stop.", ())]),
    ("It boils.\n[2] Then stop.", [("It boils.", ()), ("Then stop.", (2,))]),
    ("# 1. Use\nBoil it. [1]", [("# 1. Use", ()), ("Boil it.", (1,))]),
    ("Do:\n1. Boil. [1]\n2. Stop [2]\n", [("Do:", ()), ("1. Boil.", (1,)), ("2. Stop", (2,))]),
    (
        "| a | b. c |\n|---|---|\n| 1 [1] | 2 |",
        [("| a | b. c |", ()), ("|---|---|", ()), ("| 1 | 2 |", (1,))],
    ),
    (
        "So:\n```py\nx [1]\n\ny. z\n```\n[2]\nEnd.",
        [("So:", ()), ("```py\nx [1]\n\ny. z\n```", (2,)), ("End.", ())],
    ),
    ("```\nopen [1]", [("```\nopen [1]", ())]),
    ("```\nopen [1", [("```\nopen [1", ())]),
    ("See [a. b](http://x.y/a. c) there [1].", [("See [a. b](http://x.y/a. c) there.", (1,))]),
    ("", []),
    (" [1] ", []),
]


@pytest.mark.parametrize(("text", "found"), WRITTEN)
def test_text_is_split_into_sentences_with_markers(
    text: str, found: list[tuple[str, tuple[int, ...]]]
) -> None:
    assert [(draft.text, draft.markers) for draft in drafts(text)] == found


def test_white_space_and_code_are_kept_as_written() -> None:
    text = "So:\n\n- one [1]\n  - two\n\n```\nif x:\n    y[0]\n```\n\nEnd."
    found = drafts(text)
    assert "".join(draft.lead + draft.text for draft in found) == text.replace(" [1]", "")
    assert [draft.code for draft in found] == [False, False, False, True, False]


def test_a_sentence_is_returned_when_the_next_begins() -> None:
    one = DraftParser(5)
    assert one.feed("It boils. [1") == []
    assert one.feed("] ") == []
    assert one.feed("T") == [DraftSentence("", "It boils.", (1,), 0)]
    assert one.feed("hen [9] stop") == []
    assert one.end() == [DraftSentence(" ", "Then stop", (), 1)]
    assert DraftParser(5).end() == []


def test_a_marker_cut_off_by_the_end_is_dropped() -> None:
    assert drafts("It boils [1, ") == [DraftSentence("", "It boils", (), 1)]


def test_endless_text_is_cut_at_the_last_space_before_the_limit() -> None:
    found = drafts(" ".join(["word"] * 17), most_tokens=7)
    assert [len(draft.text.split()) for draft in found] == [7, 7, 3]


def drafts(text: str, sources: int = 5, most_tokens: int = 400) -> list[DraftSentence]:
    one = DraftParser(sources, most_tokens)
    return one.feed(text) + one.end()


def cut(text: str, places: list[int]) -> list[str]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[first:last] for first, last in itertools.pairwise(ends)]


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 400), max_size=60), st.sampled_from([4, 400]))
def test_splitting_into_pieces_does_not_change_the_sentences(
    text: str, places: list[int], most_tokens: int
) -> None:
    whole = drafts(text, most_tokens=most_tokens)
    for pieces in (cut(text, places), list(text)):
        one = DraftParser(5, most_tokens)
        found = [draft for piece in pieces for draft in one.feed(piece)] + one.end()
        assert found == whole


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_nothing_is_lost_but_markers(text: str) -> None:
    found = drafts(text, most_tokens=6)
    shown = "".join(draft.lead + draft.text for draft in found)
    assert all(draft.text.strip() == draft.text != "" for draft in found)

    def letters(of: str) -> str:
        return re.sub(r"[^\w`|#]", "", re.sub(r"\d", "", of))

    plain = _MARKER.sub(lambda match: match.group() if match["index"] else " ", text)
    if "`" not in text and "](" not in text and "/" not in text:
        assert letters(shown) == letters(plain)


@pytest.mark.parametrize(
    "text",
    ["wordword[1]word[1]and[1]", "a[1][1][1][1]and[1]", "`" + "word [1] " * 16 + "word`"],
)
def test_code_is_not_cut_where_the_rest_would_read_as_a_marker(text: str) -> None:
    found = drafts(text, most_tokens=6)
    assert "".join(draft.text for draft in found) == text
    assert not any(draft.markers for draft in found)


@given(st.lists(st.sampled_from(["word", "三分钟", "a1", "\n", ",", "-"]), max_size=80))
def test_endless_text_is_cut_at_a_space(words: list[str]) -> None:
    found = drafts(" ".join(words), most_tokens=7)
    assert all(estimate_tokens(draft.text) <= 7 for draft in found)
    assert " ".join(draft.text for draft in found).split() == " ".join(words).split()


def test_text_after_a_block_of_code_is_apart_though_it_is_parsed_at_the_end() -> None:
    one = DraftParser(5)
    # After a long text without an end, the next pieces are looked at only once there are many.
    found = one.feed("word " * 150)
    found += one.feed(".\n```\ncode\n```\n")
    found += one.feed("And after.")
    found += one.end()
    assert [(draft.text, draft.code) for draft in found][1:] == [
        ("```\ncode\n```", True),
        ("And after.", False),
    ]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    ["[1] ", "[1]", "[1] x ", "[[1]] , ", "【1】 and ", "`a ", "![a](b) ", "(( [1] ", "a[1]"],
)
def test_endless_text_is_parsed_in_time(text: str) -> None:
    # The time once doubled with every marker of a run.
    drafts = DraftParser(5)
    for _ in range(600):
        drafts.feed(text)
    drafts.end()
