"""The syntax of query texts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from nearline.errors import InvalidRequest
from nearline.filters import All, Filter, Not, Phrase, Words
from retrieval.search.query_syntax import as_plain, parse_text, with_share


@pytest.mark.parametrize(
    ("text", "plain", "condition"),
    [
        ("plain words", "plain words", None),
        ('"new york" hotel', "new york hotel", Phrase("new york")),
        ("hotel \u201cnew york\u201d", "hotel new york", Phrase("new york")),
        ("hotel -cheap", "hotel ", Not(Words("cheap"))),
        ('hotel -"new york"', "hotel ", Not(Phrase("new york"))),
        ("amplifier -XR-200", "amplifier ", Not(Phrase("XR-200"))),
        (
            'a "b c" -d "e f"',
            "a b c  e f",
            All(Phrase("b c"), Not(Words("d")), Phrase("e f")),
        ),
        # None of these is syntax.
        ('a quote " that does not close', 'a quote " that does not close', None),
        ('a 12" and a 7" single', 'a 12" and a 7" single', None),
        ("twenty-one", "twenty-one", None),
        ("a - b", "a - b", None),
        ("-- --", "-- --", None),
        ('""', '""', None),
        ('" - "', '" - "', None),
        ("it's -'s", "it's -'s", None),
    ],
)
def test_phrases_and_excluded_words_are_conditions(
    text: str, plain: str, condition: Filter | None
) -> None:
    parsed = parse_text(text, "query")
    assert (parsed.plain, parsed.condition) == (plain, condition)
    assert parsed.words == plain


@pytest.mark.parametrize(
    ("text", "plain", "words"),
    [
        ("new yo*", "new yo", "new yo*"),
        ("new yo*  ", "new yo", "new yo*"),
        ("new y* york", "new y* york", "new y* york"),
        ("5 *", "5 *", "5 *"),
        ("a**", "a**", "a**"),
    ],
)
def test_a_star_lets_the_last_word_go_on(text: str, plain: str, words: str) -> None:
    assert parse_text(text, "query") == (plain, words, None)


def test_a_plain_text_has_no_syntax() -> None:
    assert as_plain('"a b" -c*') == ('"a b" -c*', '"a b" -c* ', None)


@pytest.mark.parametrize("text", ["-a", '-"a b"', " -a -b ", '... -"a"'])
def test_a_text_that_only_excludes_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="only says what hits must not have") as caught:
        parse_text(text, "queries[3]")
    assert caught.value.field == "queries[3].text"


def test_too_many_and_too_long_conditions_are_refused() -> None:
    assert parse_text("a" + " -b" * 16, "query").condition is not None
    with pytest.raises(InvalidRequest, match="17 phrases and excluded words, 16 are allowed"):
        parse_text("a" + " -b" * 17, "query")
    with pytest.raises(InvalidRequest, match="a phrase of 1,025 characters"):
        parse_text(f'"{"a" * 1_025}"', "query")
    with pytest.raises(InvalidRequest, match="1,025 characters; with min_should_match"):
        with_share(as_plain("a" * 1_025), 0.5, "query")


def test_a_share_of_the_words_is_a_condition_on_what_is_left() -> None:
    parsed = with_share(parse_text('a "b c" d* ', "query"), 0.5, "query")
    assert parsed.condition == All(Phrase("b c"), Words("a b c d*", 0.5, similar=True))


@given(st.text(st.sampled_from('ab "-*\u201c\u201d'), max_size=40))
def test_every_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        parsed = parse_text(text, "query")
    except InvalidRequest:
        return
    # Words are neither lost nor made up.
    letters = [one for one in text if one.isalnum()]
    left = [one for one in parsed.plain if one.isalnum()]
    assert left == letters or (parsed.condition is not None and len(left) < len(letters))


@pytest.mark.parametrize("unit", ['"', "\u201c", ' "', " \u201c", " -", ' -"', "a* ", "- "])
def test_hostile_texts_are_read_in_time(unit: str) -> None:
    text = unit * (32_768 // len(unit))
    start = time.process_time()
    parse_text(f"a {text}", "query")
    assert time.process_time() - start < 0.25
