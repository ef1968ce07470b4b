"""The structure of a text: which heading, item or lead each part belongs to."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st

from nearline.items.chunking import chunk_spans
from nearline.items.documents import chunk_texts
from nearline.items.structure import Kind, parse_blocks, section_at, sections_at, titles

MANUAL = """Intro line.

## Memory

These settings matter:

- shared_buffers (integer):

  The default is 128 MB. It needs a restart.

  Set it:

  ```
  # not a heading
  shared_buffers = 1GB
  ```

- work_mem: Memory for sorts. The default is 4 MB.

After the list.

### Steps

1. Open the file.
2. Close:
   - the left one
   - the right one

To build an index without locks:

```
CREATE INDEX CONCURRENTLY
```

| name | price |
| --- | --- |
| pen | 2 |

Prices
------
They are low.
"""
_MARKS = st.sampled_from([*"# |## |- |1. |  |```|\n|\n\n|a|b:|---".split("|"), "| x |"])
_TEXTS = st.lists(_MARKS, max_size=40).map("".join)


def _blocks() -> list[tuple[Kind, str, list[str], int]]:
    return [
        (block.kind, MANUAL[block.start : block.end], titles(block.path), block.lead)
        for block in parse_blocks(MANUAL)
    ]


def test_blocks_know_their_headings_items_and_leads() -> None:
    memory, term = ["Memory"], ["Memory", "shared_buffers (integer)"]
    steps = ["Memory", "Steps"]
    assert _blocks() == [
        (Kind.PARAGRAPH, "Intro line.", [], -1),
        (Kind.HEADING, "Memory", [], -1),
        (Kind.PARAGRAPH, "These settings matter:", memory, -1),
        (Kind.ITEM, "shared_buffers (integer):", memory, 2),
        (Kind.PARAGRAPH, "The default is 128 MB. It needs a restart.", term, -1),
        (Kind.PARAGRAPH, "Set it:", term, -1),
        (Kind.CODE, "  # not a heading\n  shared_buffers = 1GB", term, 5),
        (Kind.ITEM, "work_mem: Memory for sorts. The default is 4 MB.", memory, 2),
        (Kind.PARAGRAPH, "After the list.", memory, -1),
        (Kind.HEADING, "Steps", memory, -1),
        (Kind.ITEM, "Open the file.", steps, -1),
        (Kind.ITEM, "Close:", steps, -1),
        (Kind.ITEM, "the left one", [*steps, "Close"], 11),
        (Kind.ITEM, "the right one", [*steps, "Close"], 11),
        (Kind.PARAGRAPH, "To build an index without locks:", steps, -1),
        (Kind.CODE, "CREATE INDEX CONCURRENTLY", steps, 14),
        (Kind.ROW, "| name | price |", steps, -1),
        (Kind.ROW, "| pen | 2 |", steps, 16),
        (Kind.HEADING, "Prices", memory[:0], -1),
        (Kind.PARAGRAPH, "They are low.", ["Prices"], -1),
    ]


@pytest.mark.parametrize(
    ("words", "section"),
    [
        ("Intro", ()),
        ("## Memory", ()),
        ("The default is 128", ("## Memory", "- shared_buffers (integer):")),
        ("shared_buffers = 1GB", ("## Memory", "- shared_buffers (integer):", "```")),
        ("- work_mem", ("## Memory",)),
        ("The default is 4", ("## Memory", "- work_mem:")),
        ("the right", ("## Memory", "### Steps", "- Close:")),
        ("CREATE", ("## Memory", "### Steps", "```")),
        ("They are low", ("## Prices",)),
    ],
)
def test_a_place_is_below_its_headings_and_items(words: str, section: tuple[str, ...]) -> None:
    assert section_at(MANUAL, MANUAL.index(words)) == section


@pytest.mark.parametrize("fence", ["````", "~~~"])
def test_a_fence_ends_only_at_its_own_signs(fence: str) -> None:
    text = f"# A\n\n{fence}\n```\n# no\n```\n{fence}\n\nAfter."
    assert section_at(text, text.index("After")) == ("# A",)


def test_an_indented_heading_far_above_a_place_is_found() -> None:
    text = "# A\n\n  ## B\n\n" + "A plain sentence.\n\n" * 2_000 + "The end."
    assert section_at(text, text.index("The end")) == ("# A", "## B")


@pytest.mark.parametrize("text", ["\n## a\nx" * 50_000, "```\n" * 100_000, "\n#" * 200_000])
def test_a_place_is_found_in_linear_time(text: str) -> None:
    start = time.process_time()
    section_at(text, len(text) - 1)
    assert time.process_time() - start < 1.0


@given(_TEXTS)
def test_many_places_have_the_sections_that_each_has_alone(text: str) -> None:
    places = [place for place in range(len(text)) if not text[place].isspace()]
    assert sections_at(text, places) == [section_at(text, place) for place in places]


@given(_TEXTS)
def test_a_part_that_begins_at_a_block_is_parsed_like_the_whole(text: str) -> None:
    blocks = list(parse_blocks(text))
    for number, block in enumerate(blocks):
        part = list(parse_blocks(text[block.line :], section_at(text, block.line)))
        assert [one.path for one in part] == [one.path for one in blocks[number:]]
        assert [one.kind for one in part] == [one.kind for one in blocks[number:]]


def test_headings_and_leads_stay_with_what_follows_them() -> None:
    text = "One two three. Four five six.\n\n## Costs\n\nThey are:\n\n- low\n- high"
    chunks = [text[start:end] for start, end in chunk_spans(text, 12)]
    assert chunks == ["One two three. Four five six.", "## Costs\n\nThey are:\n\n- low\n- high"]


def test_a_chunk_is_indexed_below_its_headings() -> None:
    text = "## Costs\n\nOne two three.\n\nFour five six."
    spans = chunk_spans(text, 8)
    assert chunk_texts(text, spans) == ["## Costs\n\nOne two three.", "Costs\nFour five six."]


@pytest.mark.parametrize("fence", ["```", "~~~~", "  ```"])
@pytest.mark.parametrize("sentences", [300, 480, 520])
def test_code_that_began_long_before_a_place_has_ended(fence: str, sentences: int) -> None:
    code = f"{fence}\n" + "x = 1\n" * 800 + f"{fence}\n\n"
    text = f"# Guide\n\n{code}" + "A plain sentence about tea bags.\n\n" * sentences + "The end."
    place = text.index("The end")
    assert section_at(text, place) == sections_at(text, [place])[0] == ("# Guide",)
