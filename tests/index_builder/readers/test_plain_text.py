"""The structure that the lines of plain text show."""

from __future__ import annotations

import pytest

from index_builder.readers.text import parse_text
from tests.index_builder.readers.structured_texts import faults_of

PLAIN = """ACME Ltd.
12 Main Street

RETURNS POLICY
==============

You have 45 days from the day the parcel reaches you to send things back, as
long as they are unused.

Contents
1. Fees .......... 1
2. Hours ......... 2
3. Others ........ 9

3.2 Fees
A fee of 5 euros is taken for items that come back without the box.

OPENING HOURS

Monday: 9-17
Sunday: closed

You need:
* the receipt
* the item, which may be
  in its box
  - or not

1) First this.

2) Then that,
   wrapped.

   More of the second.

Q: How long is the warranty?
A: Two years
from purchase.

Run it:

    $ acme --install
    ok

Name        Price   Stock
Hammer      9.50    12

Shipping

We ship to all countries within three days.

Roses are red,
violets are blue.
"""
PLAIN_TEXT = """ACME Ltd.
12 Main Street

## RETURNS POLICY

You have 45 days from the day the parcel reaches you to send things back, as long as they are \
unused.

### 3.2 Fees

A fee of 5 euros is taken for items that come back without the box.

## OPENING HOURS

- Monday: 9-17
- Sunday: closed

You need:

- the receipt
- the item, which may be in its box
  - or not

1. First this.
2. Then that, wrapped.

   More of the second.

### How long is the warranty?

Two years from purchase.

Run it:

```
$ acme --install
ok
```

- Name: Hammer; Price: 9.50; Stock: 12

### Shipping

We ship to all countries within three days.

Roses are red,
violets are blue."""


def test_plain_text_is_structured_text() -> None:
    document = parse_text(PLAIN, ".txt")
    assert document.title == ""
    assert document.text == PLAIN_TEXT
    assert faults_of(PLAIN_TEXT) == []


@pytest.mark.parametrize("text", ["One line.", "  a  b *c* <d> & # e  ", "- x", "1986. A year."])
def test_plain_text_of_one_line_stays(text: str) -> None:
    assert parse_text(text, ".txt").text == text.strip()


@pytest.mark.parametrize(
    ("lines", "wrapped"),
    [
        (
            ["The first line of a letter that is wrapped at some width, as letters", "often are."],
            True,
        ),
        (
            ["Each of these lines is a sentence.", "So none of them was wrapped by the width."],
            False,
        ),
        (["Roses are red,", "violets are blue."], False),
    ],
)
def test_wrapped_lines_are_joined_and_others_are_not(lines: list[str], wrapped: bool) -> None:
    text = parse_text("\n".join(lines), ".txt").text
    assert text == (" " if wrapped else "\n").join(lines)


def test_contents_without_page_numbers_are_left_out() -> None:
    contents = "Table of Contents\n\n1. Scope\n\n1.1. Terms\n1.2. Others\n\n1. Scope\n\n"
    text = "This is the scope of all that follows."
    assert parse_text(contents + text, ".txt").text == f"## 1. Scope\n\n{text}"
    steps = "1. Mix the flour.\n2. Bake it."
    assert parse_text(steps, ".txt").text == steps


def test_prices_are_no_page_numbers() -> None:
    prices = "Coffee ........ 3\nTea ........... 2\nMilk .......... 4"
    assert parse_text(prices, ".txt").text == "- Coffee: 3\n- Tea: 2\n- Milk: 4"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            "Crop            Distance   Depth\n--------------  ---------  -------\n"
            "Early potatoes  30 cm      12 cm\nBeans           20 cm",
            "- Crop: Early potatoes; Distance: 30 cm; Depth: 12 cm\n- Crop: Beans; Distance: 20 cm",
        ),
        (
            "             Basic     Family Plus\nup to 40     39.00       119.00\n"
            "from 75      on request\nPer journey  any length  any",
            "- up to 40: Basic: 39.00; Family Plus: 119.00\n- from 75: Basic: on request\n"
            "- Per journey: Basic: any length; Family Plus: any",
        ),
        (
            "4.7 Torques\n    Seat clamp    9 Nm\n    Pedals        35 Nm,\n"
            "                  greased\n    Check them twice a year.",
            "### 4.7 Torques\n\n- Seat clamp: 9 Nm\n- Pedals: 35 Nm, greased\n\n"
            "Check them twice a year.",
        ),
        (
            "WREN 20           No. 10\n------------------------\nType ...... lamp\n"
            "Height of it  34 cm\nLife ......  5 years",
            "### WREN 20 No. 10\n\n- Type: lamp\n- Height of it: 34 cm\n- Life: 5 years",
        ),
        (
            "Fees\n  Adults ..... 108.00\n  Juniors ....  54.00",
            "Fees:\n\n- Adults: 108.00\n- Juniors: 54.00",
        ),
    ],
)
def test_rows_of_tables_and_leaders_stand_alone(lines: str, text: str) -> None:
    assert parse_text(lines, ".txt").text == text


def test_code_that_is_aligned_stays() -> None:
    code = "int a;       # one\nint counter; # two\nreturn a;    # three"
    assert parse_text(code, ".txt").text == f"```\n{code}\n```"
