"""Synonyms files: what is read, and what is refused with its line and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nearline.errors import InvalidRequest
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.synonym_rules import (
    MAX_RULES,
    SynonymRule,
    Synonyms,
    check_synonyms,
    parse_synonyms,
    read_synonyms,
)


def rules_of(text: str, folder: Path) -> Synonyms:
    path = folder / "words.txt"
    path.write_bytes(text.encode())
    synonyms = read_synonyms(path)
    check_synonyms(synonyms, analyser_of("english"))
    return synonyms


def test_rules_are_read_with_their_lines(tmp_path: Path) -> None:
    text = (
        "\ufeff# TV sets, and so on => all of it\r\n"
        "tv, television ,  flat screen\r\n"
        "\r\n"
        "  nyc,big apple=>new york city , nyc\r\n"
        "c#, C sharp\n"
        r"dewey\, cheatem, a\=>b, back\\slash"
        "\nsofa => couch"
    )
    assert rules_of(text, tmp_path) == Synonyms(
        [
            SynonymRule(2, ("tv", "television", "flat screen")),
            SynonymRule(4, ("nyc", "big apple"), ("new york city", "nyc")),
            SynonymRule(5, ("c#", "C sharp")),
            SynonymRule(6, ("dewey, cheatem", "a=>b", "back\\slash")),
            SynonymRule(7, ("sofa",), ("couch",)),
        ],
        "words.txt",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    path = tmp_path / "shop.txt"
    path.write_bytes(end.join(("tv, telly", "sofa, couch", "")).encode())
    rules = [(rule.line, *rule.left) for rule in read_synonyms(path).rules]
    assert rules == [(1, "tv", "telly"), (2, "sofa", "couch")]


@pytest.mark.parametrize("rule", ["a, b\nc, d", "a, b\rc, d"])
def test_a_rule_of_several_lines_is_refused(rule: str) -> None:
    with pytest.raises(InvalidRequest, match="line 2: it has a line break; pass each line as a"):
        parse_synonyms(["tv, telly\r\n", rule])


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", " \t \r\n"])
def test_a_file_without_rules_has_none(tmp_path: Path, text: str) -> None:
    assert rules_of(text, tmp_path).rules == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a, b\ntv", "words.txt, line 2: 'tv' is alone; write its synonyms after a comma"),
        ("tv, , telly", "line 1: an entry has no word: ''; remove it"),
        ("tv, telly,", "line 1: an entry has no word: ''"),
        ("tv, !?", "line 1: an entry has no word: '![?]'"),
        ("=> television", "line 1: an entry has no word: ''"),
        ("tv =>", "line 1: an entry has no word: ''"),
        ("=>", "line 1: an entry has no word"),
        ("a => b => c", "line 1: it has more than one =>; write a line for each"),
        ("a => b\x00", "line 1: it has a NUL character; save the file as UTF-8 text"),
        (",".join(f"w{n}" for n in range(33)), "more than 32 entries; write several lines"),
        (
            ",".join(f"w{n}" for n in range(17)) + "=>" + ",".join(f"v{n}" for n in range(16)),
            "more than 32 entries",
        ),
        ("tv, " + "x" * 257, "the entry 'x{40}…' has 257 characters; at most 256 are allowed"),
        ("tv, " + "x " * 17, "has 17 words; at most 16 are allowed"),
        ("a, b\n" * (MAX_RULES + 1), r"line 10001: more than 10,000 rules; remove those"),
        # Of what could take long, only the beginning is read.
        ("word, other\n" * 1_000_000, "has more than 4,194,304 bytes; remove rules"),
        ("x" * 100_000_000, "has more than 4,194,304 bytes"),
        ("x" * 4_000_000, "line 1: it has 4,000,000 characters; at most 16,384 are allowed"),
        ("\\" * 4_000_000, "line 1: it has 4,000,000 characters"),
        ("a," * 2_000_000, "line 1: it has 3,999,999 characters|line 1: it has 4,000,000"),
        ("=>" * 2_000_000, "line 1: it has 4,000,000 characters"),
    ],
    ids=lambda text: text[:16],
)
@pytest.mark.timeout(20)
def test_a_malformed_file_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as refused:
        rules_of(text, tmp_path)
    assert refused.value.field == "synonyms"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    for data in ("a, é".encode("utf-16"), "ok, fine\na, é".encode("latin-1")):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=r"words.txt, line [12]: it is not UTF-8; save"):
            read_synonyms(path)
    for missing in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidRequest, match=r"cannot be read \(.*\); name a text file"):
            read_synonyms(missing)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a1 => b1\nb1 => a1", "1, 2"),
        ("x1, y1\na1 => b1\n\nb1 => c1\nc1, d1 => a1, e1", "2, 4, 5"),
        # The same words for the collection.
        ("cats => house pet\nhouse-pets => cat", "1, 2"),
        (
            "".join(f"w{n} => w{(n + 1) % 10_000}\n" for n in range(10_000)),
            "1, 2, 3, 4, 5 and 9995",
        ),
    ],
    ids=["two", "three", "as words", "ten thousand"],
)
@pytest.mark.timeout(20)
def test_one_way_rules_in_a_cycle_are_refused(tmp_path: Path, text: str, lines: str) -> None:
    with pytest.raises(InvalidRequest, match=f"words.txt, lines {lines}.*on one line, separated"):
        rules_of(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "nyc => nyc, new york",  # As Solr wants it, to keep the word itself.
        "wi-fi => wifi",
        "a1, b1\nb1, a1\na1 => b1",
        "a1 => b1, c1\nb1 => c1",
    ],
)
def test_other_rules_may_name_a_word_repeatedly(tmp_path: Path, text: str) -> None:
    assert rules_of(text, tmp_path).rules


@pytest.mark.timeout(20)
def test_the_number_of_synonyms_is_limited(tmp_path: Path) -> None:
    many = "".join(f"tv => t{n}, u{n}\n" for n in range(16))
    assert len(rules_of(many, tmp_path).rules) == 16
    with pytest.raises(InvalidRequest, match="line 17: with it, 'tv' has more than 32 synonyms"):
        rules_of(many + "tv => television", tmp_path)
    squares = "".join(",".join(f"w{n}x{m}" for m in range(32)) + "\n" for n in range(1_000))
    with pytest.raises(InvalidRequest, match=r"line 202: .* more than 200,000 synonyms in all"):
        rules_of(squares, tmp_path)


@given(st.lists(st.text(alphabet="ab ,=>\\#\x00é東-", max_size=12), max_size=6))
def test_any_lines_are_rules_or_refused(lines: list[str]) -> None:
    try:
        synonyms = parse_synonyms(lines)
        check_synonyms(synonyms, analyser_of("english"))
    except InvalidRequest as error:
        assert error.message.startswith("synonyms, line")
        return
    assert all(len(rule.left) + len(rule.right) > 1 for rule in synonyms.rules)
