"""Errors for attributes that do not exist name those that do."""

from __future__ import annotations

import pytest

from retrieval.index.filtering.validation import unknown_attribute_error

NAMES = [f"n{number:02d}" for number in range(23)]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ["year", "kind"],
            "there is no attribute 'yeer'; did you mean 'year'? Attributes: kind, year",
        ),
        (["b", "a"], "there is no attribute 'yeer'. Attributes: a, b"),
        (NAMES[19::-1], f"there is no attribute 'yeer'. Attributes: {', '.join(NAMES[:20])}"),
        (NAMES, f"there is no attribute 'yeer'. Attributes: {', '.join(NAMES[:20])} and 3 more"),
    ],
)
def test_at_most_twenty_attributes_are_listed_and_the_rest_counted(
    names: list[str], shown: str
) -> None:
    error = unknown_attribute_error("yeer", names, "options.filter")
    assert (error.message, error.field) == (shown, "options.filter")


def test_a_snapshot_without_attributes_is_named_as_the_cause() -> None:
    error = unknown_attribute_error("year", [], "facets[0]")
    assert "the snapshot has no attributes" in error.message
    assert error.field == "facets[0]"
