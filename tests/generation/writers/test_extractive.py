"""How units are shown: lines of a list, code, the name of what they are about, closest passages."""

from __future__ import annotations

import numpy as np
import pytest

from generation.evidence.evidence_reader import Evidence
from generation.evidence.sources import group_sources
from generation.protocols.writer import AnswerPiece, AnswerTask
from generation.writers.extractive import ExtractiveWriter
from nearline import contract as c

TEXT = """Tea is hot.

## Settings

These can be changed:

- strength: How strong it gets.
- delay: How long it takes, see [2].

To see them, run:

```
tea[1] --show
```"""


INFO = c.ReplyInfo(
    epoch=1, snapshot_id="1", fingerprint="", coverage=c.Coverage(shards_answered=1, shards_total=1)
)


def _evidence() -> Evidence:
    hit = c.Hit(id="tea", score=1.0, end=len(TEXT), title="The manual", text=TEXT)
    reply = c.SearchReply(results=[c.HitList(hits=[hit])], info=INFO)
    return Evidence("?", reply, group_sources([hit], 1))


async def _shown(scores: dict[str, float], *, closest: bool = False) -> list[str]:
    found = _evidence()
    logits = [scores.get(passage.text.split()[0], -9.0) for passage in found.sources[0].passages]
    task = AnswerTask(
        question="?",
        history=(),
        found=found,
        scores=np.array(logits, np.float64),
        max_tokens=256,
        closest=closest,
    )
    events = [event async for event in ExtractiveWriter().write(task)]
    pieces = [event for event in events if isinstance(event, AnswerPiece)]
    for piece in pieces:
        for span in piece.spans:
            # What is cited is what is shown, but for markers of answers in the text.
            cited = found.sources[0].text(span).replace("[2]", "(2)")
            assert cited in piece.text
    return [piece.text for piece in pieces]


async def test_an_item_is_shown_with_its_lead_and_its_marker() -> None:
    (piece,) = await _shown({"strength:": 9.0})
    assert piece == "Settings: These can be changed:\n\n- strength: How strong it gets."
    first, second = await _shown({"delay:": 9.0})
    assert first == "Settings: These can be changed:"
    # A stored marker is no marker of the answer.
    assert second == "\n- delay: How long it takes, see (2)."


async def test_code_is_unchanged_and_ends_its_line() -> None:
    (piece,) = await _shown({"To": 9.0})
    assert piece == "Settings: To see them, run:\n\n```\ntea[1] --show\n```\n"


async def test_the_closest_passages_follow_a_sentence_that_says_so() -> None:
    preface, *passages = await _shown({"Tea": 1.0, "To": 0.5}, closest=True)
    assert preface == "Your documents may not answer this. The closest passages:"
    # Each begins a paragraph, and has what stands around it below the same heading.
    settings = TEXT.partition("## Settings\n\n")[2].replace("[2]", "(2)")
    assert passages == ["\n\nThe manual: Tea is hot.", f"\n\nSettings: {settings}\n"]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("Cups <img src=x onerror=alert(1)> are.", "Cups < img src=x onerror=alert(1)> are."),
        ("Cups <script>alert(1)</script>", "Cups < script>alert(1)< /script>"),
        ("Cups ![a](https://evil.example/p.gif) are.", "] (https://evil.example/p.gif) are."),
        ("Cups [x](javascript:alert(1)) are.", "Cups [x] (javascript:alert(1)) are."),
        ("Cups <https://evil.example/?q> are.", "Cups https://evil.example/?q are."),
        ("Cups are\n\n[x]: javascript:alert(1)", "Cups are"),
        ("Cups:\n\n```\n~~~\n```\n![a](https://evil.example)\n```", "Cups:"),
        ("Cups of x < 3 and List<String> are.", "Cups of x < 3 and List<String> are."),
    ],
)
async def test_links_images_and_html_of_a_document_are_text(stored: str, shown: str) -> None:
    hit = c.Hit(id="cup", score=1.0, end=len(stored), title="<b onclick=x>Cups", text=stored)
    reply = c.SearchReply(results=[c.HitList(hits=[hit])], info=INFO)
    found = Evidence("?", reply, group_sources([hit], 1))
    scores = np.full(len(found.units), 9.0)
    for closest in (False, True):
        task = AnswerTask(
            question="?",
            history=(),
            found=found,
            scores=scores,
            max_tokens=256,
            closest=closest,
        )
        events = [event async for event in ExtractiveWriter().write(task)]
        text = "".join(event.text for event in events if isinstance(event, AnswerPiece))
        assert shown in text
        for active in ("](", "![", "<img", "<script", "<b ", "<http", "\n[x]:"):
            assert active not in text
