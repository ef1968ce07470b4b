"""Highlighted hits as people see them: bold in a terminal, between asterisks in a file."""

from __future__ import annotations

import pytest
from rich.style import Style

from nearline.contract import Highlights, Hit, Passage, marked_text
from nearline_cli.terminal import output
from nearline_cli.views.hits import _text_cell

HIT = Hit(
    id="a",
    score=1.0,
    title="Red cat\x1b[31m",
    highlights=Highlights(
        title=((4, 7),),
        passage=Passage(start=9, end=23, text="A cat\nand cats", spans=((2, 5), (10, 14))),
    ),
)


@pytest.mark.parametrize("terminal", [True, False])
def test_words_are_marked(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    cell = output._rich_cell(_text_cell(HIT))
    if terminal:
        # Texts cannot give the terminal commands.
        assert cell.plain == "Red cat\\x1b[31m — A cat and cats"
        bold = [cell.plain[one.start : one.end] for one in cell.spans]
        assert bold == ["cat", "cat", "cats"]
        assert all(Style.parse(str(one.style)).bold for one in cell.spans)
    else:
        assert cell.plain == "Red *cat*\\x1b[31m — A *cat* and *cats*"
        assert not cell.spans


def test_hits_without_title_or_text_are_shown() -> None:
    untitled = Hit(id="a", score=1.0, highlights=HIT.highlights)
    assert output._rich_cell(_text_cell(untitled)).plain == "A *cat* and *cats*"
    bare = Hit(id="a", score=1.0, title="Cat", highlights=Highlights(title=((0, 3),)))
    assert output._rich_cell(_text_cell(bare)).plain == "*Cat*"


def test_marked_text_is_safe_in_pages() -> None:
    text = "R&B <b>\U0001f600 cats</b>"
    assert marked_text(text, [(0, 3), (9, 13)]) == (
        "<mark>R&amp;B</mark> &lt;b&gt;\U0001f600 <mark>cats</mark>&lt;/b&gt;"
    )
    assert marked_text(text, [], escape=str) == text
    passage = Passage(start=7, end=10, text="a<b", spans=((2, 3),))
    assert passage.marked("[", "]") == "a&lt;[b]"
