"""Units of an answer stand alone: with their lead, their term, the sentence before, their code."""

from __future__ import annotations

import time

import pytest

from generation.evidence.answer_units import context_of, list_units
from generation.evidence.sources import group_sources
from nearline.contract import Hit
from nearline.items.chunking import chunk_spans
from nearline.items.structure import section_at

MANUAL = """Tea needs water. It boils at 100 degrees. This is hot. Yes. Use a kettle.

## Settings

These can be changed:

- strength: How strong it gets. The default is 3.
- retention_days:

  How long cups are kept. The default is 35.

To see them, run:

```
# all of them
tea --show
```

## Cleaning

1. Empty it.
2. Rinse it.
3. Dry it.

## Prices

- Cup: small; Price: 2
- Cup: large; Price: 3"""


def _units(text: str, max_tokens: int = 0) -> dict[str, tuple[str, str]]:
    """Returns context and text of the unit of each passage."""
    hits = [
        Hit(
            id="tea",
            score=1.0,
            chunk=number,
            start=start,
            end=end,
            title="Tea",
            text=text[start:end],
            section=section_at(text, start),
        )
        for number, (start, end) in enumerate(chunk_spans(text, max_tokens))
    ]
    sources = group_sources(hits, 1)
    units = list_units(sources)
    return {
        passage.text: (context_of(sources[0], unit), unit.text)
        for passage, unit in zip(sources[0].passages, units, strict=True)
    }


def test_a_sentence_that_refers_to_another_has_it() -> None:
    units = _units(MANUAL)
    assert units["Tea needs water."] == ("Tea", "Tea needs water.")
    assert units["It boils at 100 degrees."][1] == "Tea needs water. It boils at 100 degrees."
    assert units["This is hot."][1] == "Tea needs water. It boils at 100 degrees. This is hot."
    # A stub has the next sentence.
    assert units["Yes."][1] == "Yes. Use a kettle."


def test_an_item_has_its_lead_and_a_term_its_description() -> None:
    units = _units(MANUAL)
    item = "strength: How strong it gets. The default is 3."
    for sentence in ("strength: How strong it gets.", "The default is 3."):
        assert item in units[sentence][1]
    assert units["strength: How strong it gets."][1] == f"These can be changed:\n{item}"
    term = units["retention_days:"][1]
    assert "How long cups are kept. The default is 35." in term and "3." not in term.split("35")[0]
    assert units["The default is 35."] == ("Tea: Settings: retention_days", "The default is 35.")


def test_code_has_the_sentence_before_it_and_that_sentence_the_code() -> None:
    code = "```\n# all of them\ntea --show\n```"
    units = _units(MANUAL)
    assert units[code][1] == units["To see them, run:"][1] == f"To see them, run:\n{code}"


def test_steps_are_shown_from_the_first_on_and_rows_alone() -> None:
    units = _units(MANUAL)
    assert units["Empty it."] == ("Tea: Cleaning", "Empty it.\nRinse it.\nDry it.")
    assert units["Rinse it."][1] == "Rinse it."
    assert units["Cup: large; Price: 3"] == ("Tea: Prices", "Cup: large; Price: 3")


def test_units_are_the_same_in_small_chunks() -> None:
    whole, cut = _units(MANUAL), _units(MANUAL, 24)
    assert whole.keys() == cut.keys()
    # A sentence that was cut off from its item is below the item's term.
    assert cut.pop("The default is 3.")[0] == "Tea: Settings: strength"
    assert all(context == whole[passage][0] for passage, (context, _) in cut.items())
    assert cut["The default is 35."] == whole["The default is 35."]


def test_a_long_context_keeps_the_title_and_the_nearest_headings() -> None:
    text = "".join(f"{'#' * depth} {'x' * 50} {depth}\n\n" for depth in (1, 2, 3, 4)) + "Here."
    ((context, _),) = _units(text).values()
    assert context.startswith("Tea: ") and context.endswith(" 4") and len(context) < 170


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"The part {n} is checked." for n in range(4_000)),
        "Parts:\n\n" + "\n".join(f"- The part {n} is checked." for n in range(4_000)),
        "\n".join(f"{n}. Open part {n}. Close it." for n in range(2_000)),
        "- " + " ".join(f"The part {n} is checked." for n in range(4_000)),
    ],
)
def test_units_of_a_long_document_are_found_in_linear_time(text: str) -> None:
    began = time.perf_counter()
    list_units(group_sources([Hit(id="1", score=1.0, title="Parts", text=text)], 1))
    assert time.perf_counter() - began < 2.0
