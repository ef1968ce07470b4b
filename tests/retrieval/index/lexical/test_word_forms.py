"""Misspelt words are found where a scan over all forms finds them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rapidfuzz.distance import OSA

from retrieval.index.lexical import word_forms
from retrieval.index.lexical.word_forms import (
    MAX_FORM,
    SimilarForm,
    WordForms,
    edits_allowed,
    is_form,
    similar_words,
    write_forms,
)

LATIN, OTHER = "abcdefghijklmnopqrstuvwxyz", "абвгдежзиклмнопрстухцшщыьэюя"


def written(folder: Path, forms: Sequence[str]) -> WordForms:
    """Writes distinct forms; the word of each is 7 + its place in order."""
    ordered = sorted(forms, key=str.encode)
    write_forms(folder, ordered, range(7, 7 + len(ordered)))
    return WordForms.load(folder)


def scan(word: str, forms: Sequence[str]) -> tuple[SimilarForm, ...]:
    ordered = sorted(forms, key=str.encode)
    most = 0 if not word.isalpha() or len(word) < 4 else 1 if len(word) < 8 else 2
    return tuple(
        sorted(
            SimilarForm(edits, form, 7 + place)
            for place, form in enumerate(ordered)
            if 0 < (edits := OSA.distance(word, form)) <= (most if len(word) <= MAX_FORM else 0)
        )
    )


def edited(draw: random.Random, word: str, letters: str) -> str:
    at, letter = draw.randrange(len(word)), draw.choice(letters)
    near = min(at, len(word) - 2)
    return draw.choice(
        [
            word[:at] + word[at + 1 :],
            word[:at] + letter + word[at:],
            word[:at] + letter + word[at + 1 :],
            word[:near] + word[near : near + 2][::-1] + word[near + 2 :],
        ]
    )


# Two letters, so that there are many near words; letters of two bytes; letters beyond 16 bits.
@pytest.mark.parametrize("letters", ["ab", LATIN, OTHER, "é𝒳ßb漢", "ab" * 9 + LATIN])
def test_similar_forms_are_those_of_a_scan(tmp_path: Path, letters: str) -> None:
    draw = random.Random(letters)
    forms = list(
        {"".join(draw.choices(letters, k=draw.randint(3, 20))) for _ in range(400)}
        | {"".join(draw.choices(letters, k=draw.randint(28, 32))) for _ in range(10)}
    )
    found = written(tmp_path, forms)
    assert len(found) == len(forms)
    hits = 0
    for _ in range(600):
        word = draw.choice(forms)
        for _ in range(draw.randint(0, 2)):
            word = edited(draw, word, letters)
        similar = found.similar(word)
        assert similar == scan(word, forms)
        hits += len(similar)
    assert hits > 150


@settings(max_examples=50, deadline=None)
@given(st.text("abc", min_size=3, max_size=14), st.data())
def test_any_two_edits_of_a_form_are_found(form: str, data: st.DataObject) -> None:
    word = form
    for _ in range(2):
        at = data.draw(st.integers(0, len(word) - 2))
        word = data.draw(
            st.sampled_from(
                [
                    word[:at] + word[at + 1 :],
                    word[:at] + "c" + word[at:],
                    word[:at] + "a" + word[at + 1 :],
                    word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                ]
            )
        )
        if len(word) < 2:
            return
    with TemporaryDirectory() as folder:
        assert written(Path(folder), [form]).similar(word) == scan(word, [form])


def test_swaps_across_both_borders_of_segments_are_found(tmp_path: Path) -> None:
    found = written(tmp_path, ["abcdefghi", "abcd", "abcde"])
    assert [one.form for one in found.similar("abdcegfhi")] == ["abcdefghi"]
    assert [one.form for one in found.similar("acbd")] == ["abcd"]
    assert [one.form for one in found.similar("bacde")] == ["abcde"]
    assert found.similar("xbce") == ()


def test_short_long_and_other_words_are_not_misspelt() -> None:
    assert [edits_allowed("x" * n) for n in (0, 3, 4, 7, 8, 32, 33)] == [0, 0, 1, 1, 2, 2, 0]
    assert [edits_allowed(word) for word in ("word1234", "a-b-c-d-e", "हिन्दी")] == [0, 0, 0]
    assert [is_form(word) for word in ("ab", "abc", "x" * 32, "x" * 33, "abc1")] == [
        *(False, True, True, False, False)
    ]


def test_new_words_resemble_a_misspelt_one_in_the_same_way() -> None:
    words = ["metallica", "metal", "mettalica", "metallics", "other"]
    assert similar_words("mtealliac", words) == [(2, "metallica")]
    assert similar_words("metallica", words) == [(1, "metallics"), (2, "mettalica")]
    assert similar_words("met", words) == similar_words("metallica", []) == []


def test_no_forms_have_nothing_similar(tmp_path: Path) -> None:
    assert written(tmp_path, []).similar("metallica") == ()


def test_a_word_is_compared_with_a_limited_number_of_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All have the same first segments; the last one is that of few.
    forms = [f"aaaaaaaaaaaa{letters}" for letters in _triples()]
    found = written(tmp_path, forms)
    compared: list[int] = []
    closest = word_forms._closest
    monkeypatch.setattr(
        word_forms,
        "_closest",
        lambda word, near, edits: compared.append(len(near)) or closest(word, near, edits),  # type: ignore[func-returns-value]
    )
    monkeypatch.setattr(word_forms, "_MAX_COMPARED", 500)
    similar = found.similar("aaaaaaaaaaaazzx")
    assert 0 < compared[0] <= 500 < len(forms)
    assert {form.form for form in similar} <= {form.form for form in scan("aaaaaaaaaaaazzx", forms)}


def _triples() -> list[str]:
    return [a + b + c for a in LATIN for b in LATIN for c in LATIN]


def test_hashes_of_the_builder_are_those_of_a_query(tmp_path: Path) -> None:
    form = "naïveté𝒳漢"
    written(tmp_path, [form])
    segments = np.load(tmp_path / word_forms.SEGMENTS)
    hashes = {*word_forms._query_hashes(form, 1), *word_forms._query_hashes(form, 2)}
    assert len(segments) == 2 + 3
    assert hashes.issuperset(segments["hash"].tolist())
    assert np.array_equal(segments["hash"], np.sort(segments["hash"]))
