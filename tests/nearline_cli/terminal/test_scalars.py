"""Attributes of a command line: what is a text, a number and a truth value."""

from __future__ import annotations

import pytest

from nearline.errors import InvalidRequest
from nearline_cli.terminal.scalars import read_scalars


def test_values_have_the_kind_that_they_look_like() -> None:
    words = [
        "country=DE",
        "age=34",
        "share=0.5",
        "pro=true",
        'zip="07001"',
        "note=a=b",
        "none=",
        "from=O'Brien",
        "q=$user.x",
    ]
    assert read_scalars(words) == {
        "country": "DE",
        "age": 34,
        "share": 0.5,
        "pro": True,
        "zip": "07001",
        "note": "a=b",
        "none": "",
        "from": "O'Brien",
        "q": "$user.x",
    }
    # No JSON, or none that is one value.
    odd = ["a=NaN", "b=null", "c=[1]", "d=1e", 'e="x']
    assert list(read_scalars(odd).values()) == ["NaN", "null", "[1]", "1e", '"x']


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["country"], "'country' is not NAME=VALUE"),
        (["=DE"], "'=DE' is not NAME=VALUE"),
        (["age>3"], "'age>3' is not NAME=VALUE"),
        (["a=1", "a=2"], "a occurs twice"),
    ],
)
def test_what_is_no_attribute_is_named(words: list[str], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_scalars(words)
