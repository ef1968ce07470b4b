"""Texts are split and folded into words, whatever their script."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from nearline.errors import InvalidRequest
from retrieval.index.lexical.analysers import analyser_of
from retrieval.index.lexical.text_analysis import (
    Analyser,
    fold,
    iter_compounds,
    iter_variants,
    normalize,
    split_query,
    split_words,
)

SOFT_HYPHEN, JOINER, NON_JOINER = "\u00ad", "\u200d", "\u200c"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # A ligature, a combining accent, and underscores.
        ("ﬁne cafe\u0301 x_y", ["fine", "cafe", "x", "y"]),
        # Accents of Latin and Greek are dropped, also from letters with two.
        ("Björk, ÅNGSTRÖM, Ærø; ǿ ǽ ệ", ["bjork", "angstrom", "aero", "o", "ae", "e"]),
        (
            "Łódź Đà Nẵng İstanbul ısı Straße GROẞ",
            "lodz da nang istanbul isi strasse gross".split(),
        ),
        ("Άλφα ΐ ΣΟΦΟΣ", ["αλφα", "ι", "σοφοσ"]),
        # Letters of Cyrillic are others with a mark, but for the optional one; stress is no letter.
        ("Йод Ёлка мой за\u0301мок", ["йод", "елка", "мой", "замок"]),
        # Vowel signs belong to words.
        ("हिन्दी में खाना।", ["हिन्दी", "में", "खाना"]),
        ("ที่นี่ กำ", ["ที่นี่", "ก\u0e4dา"]),
        ("ລາວ ຄໍາ ខ្មែរ မြန်မာ བོད་", ["ລາວ", "ຄໍາ", "ខ្មែរ", "မြန်မာ", "བོད"]),
        # Points of Arabic and Hebrew are optional, and so is what stretches a word.
        ("مُحَمَّد هٰذا محـمد", ["محمد", "هذا", "محمد"]),
        ("שָׁלוֹם", ["שלום"]),
        # Invisible characters are in no word; the zero width non-joiner separates parts of one.
        (f"Donau{SOFT_HYPHEN}dampf ශ්{JOINER}රී می{NON_JOINER}روم", "donaudampf ශ්රී می روم".split()),
        ("東京タワーへ go", [*"東京タワーへ", "go"]),
        ("ﾊﾘｰ･ﾎﾟｯﾀｰ", [*"ハリーポッター"]),
        ("서울 대학교", ["서울", "대학교"]),
        ("JAMES'S rock’s cats' 's 'sun's", ["james", "rock", "cats", "sun"]),
        ("¹½ ①", ["11", "2", "1"]),
        ("😀 👩\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3", ["1"]),
        ("\ud800 a\udfffb", ["a", "b"]),
        ("\u0301\u0301 … '' \" -", []),
        ("", []),
    ],
)
def test_texts_are_split_into_folded_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert Analyser("none").split(text) == words


@pytest.mark.parametrize(
    ("text", "variants"),
    [
        ("The XR-200, AT&T and U.S.A. use snake_case", ["xr200", "att", "usa", "snakecase"]),
        ("Spider\u2011Man rock'n'roll", ["spiderman", "rocknroll"]),
        # The s of a possessive is no part of a compound; a hyphen at the end joins nothing.
        ("cat's cats' x- -y a--b", []),
        ("Björk-Gudmundsdóttir", ["bjorkgudmundsdottir", "björk", "gudmundsdóttir"]),
        ("col·lecció", ["colleccio", "lecció"]),
        (f"می{NON_JOINER}روم", ["میروم"]),
        ("東京都 大阪 京", ["東京", "京都", "大阪"]),
        ("ハリー・ポッター", ["ハリ", "リー", "ーポ", "ポッ", "ッタ", "ター"]),
        # As one word it would be too long to be a name.
        ("-".join(["long"] * 9), []),
        ("-".join(["long"] * 6), ["long" * 6]),
        ("plain words", []),
        ("ไม่ हिन्दी", []),
    ],
)
def test_texts_are_also_found_by_variants(text: str, variants: list[str]) -> None:
    assert Analyser("none").variants(text) == variants


def test_queries_have_pairs_of_characters_in_place_of_runs() -> None:
    assert split_query("東京都へ go, 京") == ["東京", "京都", "都へ", "go", "京"]
    assert split_query("ﾊﾘｰ ハ･リ x_y") == ["ハリ", "リー", "ハリ", "x", "y"]
    assert split_query("Cats' XR-200 Björk") == split_words("Cats' XR-200 Björk")


@given(st.text(st.sampled_from("京ハー・go '-_éйि\u0301" + SOFT_HYPHEN + NON_JOINER), max_size=20))
def test_whatever_a_query_looks_for_is_indexed(text: str) -> None:
    indexed = {*split_words(text), *iter_variants(text)}
    assert indexed.issuperset(split_query(text))
    for parts, whole in iter_compounds(text):
        assert len(parts) > 1 and "".join(parts) == whole and whole in indexed
        assert set(parts) <= set(split_words(text))


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    words = split_words(text)
    assert all(fold(word) == word for word in words)
    assert split_words(" ".join(words)) == words


def test_no_letter_is_folded_to_nothing() -> None:
    """And those of other scripts than Latin, Greek and Cyrillic are kept."""
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) not in ("Lu", "Ll", "Lo"):
            continue
        folded = fold(normalize(letter))
        name = unicodedata.name(letter, "")
        # Some are forms of points alone, on the letter that stretches words.
        letters = unicodedata.normalize("NFKC", letter).replace("\u0640", "")
        assert folded or not any(map(str.isalpha, letters)), name
        if name.startswith(("HANGUL", "HIRAGANA", "DEVANAGARI", "ARABIC LETTER", "ARMENIAN")):
            assert folded == normalize(letter)
        if name.startswith(("LATIN CAPITAL LETTER", "GREEK CAPITAL LETTER")) and " WITH " in name:
            assert not any(unicodedata.combining(c) for c in unicodedata.normalize("NFD", folded))


# Each took minutes or more with a pattern that tries to match the same text in several ways.
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        *("a" * 200_000 + "!", "a-" * 100_000, "-a" * 100_000 + "!", "'s" * 100_000),
        *("क" * 200_000 + "।", "कि" * 100_000 + "।", "कि-" * 100_000, "\u0301" * 200_000),
        *("東" * 200_000, "é" * 200_000, "_" * 200_000, "😀" * 100_000, "." * 200_000 + "a"),
    ],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    split_words(text), split_query(text), list(iter_variants(text))


def test_words_are_stems_without_stop_words() -> None:
    english = analyser_of("english")
    assert english.words("The Cats, and a cat's mats") == ["cat", "cat", "mat"]
    assert english.words("IL-6 in vitamin D") == ["il", "6", "vitamin", "d"]
    assert analyser_of("german").words("Die Häuser und der Hund") == ["haus", "hund"]
    # Stop words are folded, too.
    assert analyser_of("french").words("À même les élèves") == ["elev"]
    assert Analyser("none").words("The cats") == ["the", "cats"]
    with pytest.raises(InvalidRequest, match=r"'klingon'.*use one of none, arabic"):
        analyser_of("klingon")


def test_version_1_keeps_accents_underscores_and_the_s() -> None:
    old = Analyser("english", {"the"}, version=1)
    assert old.split("Café x_y, the cat's ハ・リ") == [*"café x_y the cat s".split(), *"ハ・リ"]
    assert old.words("The cats' mats") == ["cat", "mat"]
    assert old.variants("XR-200 Björk 東京") == []
