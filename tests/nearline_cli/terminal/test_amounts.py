"""Tests of options that take a large number."""

from __future__ import annotations

import pytest
import typer

from nearline_cli.terminal.amounts import Amount, read_amount


@pytest.mark.parametrize(
    ("text", "number"),
    [("8000", 8e3), ("15k", 15e3), ("10M", 10e6), ("80G", 80e9), ("3.35T", 3.35e12), ("0.5", 0.5)],
)
def test_a_number_is_read_as_people_write_it(text: str, number: float) -> None:
    assert read_amount(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "0", "-1", "1X", "10m", "1e9", "nan", "2000000T", "9" * 99])
def test_what_is_no_number_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 8000, 15k, 10M"):
        read_amount(text)


@pytest.mark.parametrize(("number", "text"), [(1, "1"), (2e9, "2G"), (1.5e6, "1500k"), (0, "0")])
def test_a_default_is_shown_in_its_largest_unit(number: float, text: str) -> None:
    assert str(Amount(number)) == text
