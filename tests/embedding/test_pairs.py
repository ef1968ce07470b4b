"""Pairs: their lengths, and what of long texts is kept."""

from __future__ import annotations

from hypothesis import given, strategies as st

from embedding.pairs import make_pairs, pack_pairs, unpack_pairs


def test_a_pair_is_as_long_as_both_texts_and_three_special_tokens() -> None:
    # Words of up to six letters are a token each.
    first, second = make_pairs(["which kettle", "which kettle"], ["red", "red one here"], 64)
    assert (len(first), len(second)) == (6, 8)


def test_a_pair_is_no_longer_than_the_model_reads() -> None:
    (pair,) = make_pairs(["a b c"], ["x " * 500], 64)
    assert len(pair) == 64


def test_what_no_model_of_that_length_reads_is_cut_off() -> None:
    (pair,) = make_pairs(["a" * 100], ["🙂" * 1_000_000], 4)
    assert (pair.first, pair.second) == ("a" * 64, "🙂" * 64)


@given(
    texts=st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=6),
    most=st.integers(1, 64),
)
def test_every_pair_keeps_its_place_and_has_a_length(
    texts: list[tuple[str, str]], most: int
) -> None:
    pairs = make_pairs([a for a, _ in texts], [b for _, b in texts], most)
    longest = 16 * most
    assert [(p.first, p.second) for p in pairs] == [(a[:longest], b[:longest]) for a, b in texts]
    assert all(1 <= len(pair) <= most for pair in pairs)
    assert unpack_pairs(pack_pairs(pairs)) == pairs
