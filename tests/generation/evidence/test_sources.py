"""Tests that chunks become documents without copies, and that sentences are selected."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from generation.evidence.answer_units import list_units
from generation.evidence.sources import EvidenceSource, group_sources, list_passages
from generation.writers.extractive import UnitSelection, closest_units, select_units
from nearline.contract import Hit
from nearline.sentences import estimate_tokens

TEXT = "Alpha is first. Beta comes next. Gamma is third. Delta ends it."


def hit(id: str, chunk: int, start: int, text: str, score: float) -> Hit:
    return Hit(
        id=id, score=score, chunk=chunk, start=start, end=start + len(text), title=id, text=text
    )


def test_chunks_are_grouped_by_document_and_shared_sentences_occur_once() -> None:
    second = hit("a", 1, 16, TEXT[16:48], 0.9)
    first = hit("a", 0, 0, TEXT[:32], 0.8)
    (source,) = group_sources([second, first], 5)
    assert source.best is second
    assert [(p.chunk, p.start, p.end, p.text) for p in source.passages] == [
        (0, 0, 15, "Alpha is first."),
        (0, 16, 32, "Beta comes next."),
        (1, 33, 48, "Gamma is third."),
    ]
    for passage in source.passages:
        assert TEXT[passage.start : passage.end] == passage.text
    assert [unit.text for unit in list_units([source])] == [p.text for p in source.passages]


def test_headings_are_no_sentences_of_an_answer() -> None:
    text = "# Papertrail\n\n## Upgrading\n\nStop the service. #1 is first.\n\n### What is new?"
    (source,) = group_sources([hit("a", 0, 7, text, 0.9)], 5)
    assert [(p.start - 7, p.text) for p in source.passages] == [
        (text.index("Stop"), "Stop the service."),
        (text.index("#1"), "#1 is first."),
    ]
    # They say what is below them.
    assert [p.path for p in source.passages] == [("Papertrail", "Upgrading")] * 2


def test_a_document_of_headings_alone_has_no_sentences() -> None:
    (source,) = group_sources([hit("a", 0, 0, "# Papertrail\n\n## Upgrading", 0.9)], 5)
    assert not list_passages([source])


def test_copies_are_omitted_and_the_number_of_documents_is_limited() -> None:
    hits = [
        hit("a", 0, 0, TEXT, 0.9),
        hit("b", 0, 0, TEXT.replace("Delta", "Omega").replace("Omega", "Delta"), 0.8),
        hit("c", 0, 0, "Something else altogether.", 0.7),
        hit("d", 0, 0, "And a fourth thing.", 0.6),
    ]
    assert [source.best.id for source in group_sources(hits, 2)] == ["a", "c"]


def _select(
    sources: list[EvidenceSource], scores: NDArray[np.float64], max_tokens: int
) -> UnitSelection:
    return select_units(sources, list_units(sources), scores, max_tokens)


def found() -> list[EvidenceSource]:
    return group_sources(
        [hit("a", 0, 0, TEXT, 0.9), hit("b", 0, 100, "Beta comes next. Zeta is new.", 0.5)], 5
    )


def test_neighbours_are_one_span_and_the_source_of_the_best_comes_first() -> None:
    scores = np.array([-9.0, -1.0, -1.5, -9.0, -9.0, 0.5])
    chosen = _select(found(), scores, 256)
    assert [(span.source, span.start, span.end) for span in chosen.spans] == [
        (1, 117, 129),
        (0, 16, 48),
    ]
    assert not chosen.truncated


def test_a_sentence_occurs_once_and_weak_ones_are_omitted() -> None:
    scores = np.array([-9.0, 1.0, -9.0, -9.0, 0.9, -9.0])
    (span,) = _select(found(), scores, 256).spans
    assert (span.source, span.start, span.end) == (0, 16, 32)


@pytest.mark.parametrize(
    ("scores", "sentences"),
    [
        # 0.95 is reached by one of 0.96, or by two of 0.8 (1 - 0.2 * 0.2).
        ([3.2, 3.1, -9.0, -9.0], 1),
        ([1.4, 1.4, 1.3, -9.0], 2),
        # Below it, sentences are added, three at most, until the next is hardly evidence.
        ([0.0, -0.1, -0.2, -0.3], 3),
        ([-1.0, -2.7, -9.0, -9.0], 2),
        ([-1.0, -2.8, -9.0, -9.0], 1),
        # A sentence that is much worse than the best is left out.
        ([0.0, -2.1, -9.0, -9.0], 2),
        ([0.0, -2.3, -9.0, -9.0], 1),
        # There is always one.
        ([-5.0, -5.1, -5.2, -5.3], 1),
    ],
)
def test_the_fewest_sentences_that_probably_hold_the_evidence_are_selected(
    scores: list[float], sentences: int
) -> None:
    (source,) = group_sources([hit("a", 0, 0, TEXT, 0.9)], 5)
    (span,) = _select([source], np.array(scores), 256).spans
    assert len(span.passages) == sentences and span.start == 0


def test_an_answer_ends_at_its_length_but_has_one_sentence() -> None:
    scores = np.array([1.0, 0.9, 0.8, 0.7, -9.0, 0.6])
    chosen = _select(found(), scores, 1)
    assert [(span.start, span.end) for span in chosen.spans] == [(0, 15)]
    assert chosen.truncated


@pytest.mark.parametrize(("room", "sentences"), [(0, 2), (-1, 1)])
def test_an_answer_that_just_fits_is_not_truncated(room: int, sentences: int) -> None:
    first, second = (estimate_tokens(one.text) for one in list_passages(found())[:2])
    scores = np.array([1.0, 0.9, -9.0, -9.0, -9.0, -9.0])
    chosen = _select(found(), scores, first + second + room)
    assert sum(len(span.passages) for span in chosen.spans) == sentences
    assert chosen.truncated is (sentences < 2)


def test_a_listing_is_used_only_if_no_prose_is_as_good() -> None:
    listing = " ".join(f"case{n}" for n in range(200)) + "."
    (source,) = group_sources([hit("a", 0, 0, f"{listing} A short word on it.", 0.9)], 5)
    (span,) = _select([source], np.array([2.0, 0.0]), 256).spans
    assert (span.start, span.end) == (len(listing) + 1, len(listing) + 20)
    (span,) = _select([source], np.array([3.0, -9.0]), 256).spans
    assert (span.start, span.end) == (0, len(listing))


def test_the_closest_units_share_no_passage() -> None:
    sources = found()
    units = list_units(sources)
    scores = np.array([-3.0, 1.0, -2.0, -9.0, 0.9, 0.5])
    # The sources are so short that they are shown as a whole, but for what they share.
    best = [unit.text for unit in closest_units(sources, units, scores, 256)]
    assert best == [TEXT, "Zeta is new."]
    # They end at the length of an answer, but there is one, without its neighbours.
    best = [unit.text for unit in closest_units(sources, units, scores, 1)]
    assert best == ["Beta comes next."]


def test_a_closest_unit_has_its_neighbours_below_the_same_heading() -> None:
    days = [f"| day {n} | {'open ' * 15}{n} |" for n in range(9)]
    text = "## Hours\n\n| Day | Hours |\n| --- | --- |\n" + "\n".join(days) + "\n\n## Fees\n\nNone."
    sources = group_sources([hit("a", 0, 0, text, 0.9)], 5)
    units = list_units(sources)
    (passages,) = (source.passages for source in sources)

    def widened(of: str) -> list[str]:
        at = next(n for n, passage in enumerate(passages) if of in passage.text)
        scores = np.where(np.arange(len(units)) == at, 1.0, -9.0)
        first, *_ = closest_units(sources, units, scores, 256)
        return [passage.text for passage in first.passages]

    # A row has 88 characters, so there is room for three, with the header.
    header = "| Day | Hours |"
    assert widened("day 4") == [header, *days[3:6]]
    assert widened("day 8") == [header, *days[6:]]
    assert widened("None") == ["None."]
