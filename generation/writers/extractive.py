"""Answers made of units of the evidence, word for word; needs no language model."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from generation.checks.citations import clean_text
from generation.checks.hidden_text import strip_hidden_text
from generation.checks.link_filter import defuse_text
from generation.evidence.answer_units import AnswerUnit, label_of
from generation.evidence.sentence_features import plain
from generation.evidence.sources import EvidenceSource, Passage, Span
from generation.protocols.writer import AnswerPiece, AnswerTask, WriterEnd, WriterEvent
from nearline.items.structure import Kind
from nearline.sentences import estimate_tokens

EXTRACTIVE = "extractive"

# Units are added until one of them is evidence with this probability, while the next one is with at
# least that. Source: SelQA train, so that answers have about 260 characters (see docs/quality.md).
_ENOUGH, _LEAST = 0.95, 0.06
# How far below the best unit another one may be, in logits: a sentence, and an entry. Items, rows
# and code stand beside others of their kind with other values. Source: folders and articles that
# the judge had not seen, where one unit alone is right for 0.70 and 0.83 of the questions, and
# these for 0.72 and 0.89.
_SENTENCE_LOGITS, _ENTRY_LOGITS = 2.2, 0.35
_MOST_UNITS = 3
_STEEPEST = 50.0
# Listings and tables are one long sentence: used only if no short one is as good.
_LONG_TOKENS, _LONG_LOGITS = 192, 2.5
_TITLE_CHARACTERS = 64
# A passage that may be no answer is shown with its neighbours up to this many characters.
_WIDE_CHARACTERS = 300
# Words of a title that name a subject.
_SUBJECT = re.compile(r"\w{4,}")
# A title of code has a sign inside a word.
_CODE = re.compile(r"\w[._:(]+\w|\w\(\)|--\w")
_CLOSEST = "Your documents may not answer this. The closest passages:"


class UnitSelection(NamedTuple):
    """spans: In reading order. truncated: Whether good units were left out for length."""

    spans: Sequence[Span]
    truncated: bool


class ExtractiveWriter:
    """Writes the best units of the evidence; a `Writer`."""

    name = EXTRACTIVE

    async def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        """Yields the units in reading order, or as the closest passages; see `Writer.write`."""
        sources, units = task.found.sources, task.found.units
        tokens, truncated, gap = 0, False, ""
        if task.closest:
            yield AnswerPiece(_CLOSEST, (), ())
            closest = closest_units(sources, units, task.scores, task.max_tokens)
            shown, gap = [list(_spans(sources, unit.passages)) for unit in closest], "\n\n"
        else:
            spans, truncated = select_units(sources, units, task.scores, task.max_tokens)
            shown = [list(spans)]
        for spans in shown:
            for piece in _shown(sources, spans, gap):
                tokens += estimate_tokens(piece.text)
                yield piece
        yield WriterEnd(truncated, 0, tokens)


def select_units(
    sources: Sequence[EvidenceSource],
    units: Sequence[AnswerUnit],
    scores: NDArray[np.float64],
    max_tokens: int,
) -> UnitSelection:
    """Selects the fewest units that hold the evidence, and puts them in reading order.

    The source of the best unit comes first; within a source, passages keep their order.

    Args:
        sources: The evidence.
        units: Its units.
        scores: (n,) logit of each unit.
        max_tokens: Maximum tokens, by `estimate_tokens`; the best unit is always included.
    """
    lengths = np.array([estimate_tokens(unit.text) for unit in units])
    scores = scores - np.where(lengths > _LONG_TOKENS, _LONG_LOGITS, 0.0)
    probabilities = 1 / (1 + np.exp(-np.clip(scores, -_STEEPEST, _STEEPEST)))
    taken: dict[tuple[int, int], Passage] = {}
    texts: set[str] = set()
    count, spent, truncated, missing = 0, 0, False, 1.0
    order = np.argsort(-scores, kind="stable").tolist()
    for at in order:
        enough = missing <= 1 - _ENOUGH or probabilities[at] < _LEAST
        if taken and (enough or count == _MOST_UNITS):
            break
        entries = not (_is_prose(units[at].passages) and _is_prose(units[order[0]].passages))
        if scores[at] < scores[order[0]] - (_ENTRY_LOGITS if entries else _SENTENCE_LOGITS):
            continue
        fresh = [
            passage
            for passage in units[at].passages
            if (passage.document, passage.start) not in taken
            # A sentence that two documents share is used once.
            and plain(passage.text) not in texts
        ]
        tokens = sum(estimate_tokens(passage.text) for passage in fresh)
        if not fresh or (taken and tokens > _LONG_TOKENS):
            continue
        if taken and spent + tokens > max_tokens:
            truncated = True
            continue
        for passage in fresh:
            taken[passage.document, passage.start] = passage
            texts.add(plain(passage.text))
        count += 1
        spent += tokens
        missing *= 1 - probabilities[at]
    ranks: dict[int, int] = {}
    for document, _ in taken:
        ranks.setdefault(document, len(ranks))
    read = sorted(taken.values(), key=lambda one: (ranks[one.document], one.start))
    return UnitSelection(list(_spans(sources, read)), truncated)


def _is_prose(passages: Sequence[Passage]) -> bool:
    return all(passage.kind is Kind.PARAGRAPH for passage in passages)


def closest_units(
    sources: Sequence[EvidenceSource],
    units: Sequence[AnswerUnit],
    scores: NDArray[np.float64],
    max_tokens: int,
) -> list[AnswerUnit]:
    """Returns the best units that share no passage, best first, with what stands around them.

    See `select_units`. An answer may stand beside the unit that is nearest to the question.
    """
    found: list[AnswerUnit] = []
    texts: set[str] = set()
    for at in np.argsort(-scores, kind="stable").tolist():
        unit = units[at]
        repeats = not texts.isdisjoint(plain(passage.text) for passage in unit.passages)
        if repeats or (found and estimate_tokens(unit.text) > max_tokens):
            continue
        wide = widen(sources[unit.document].passages, unit, texts)
        if estimate_tokens(wide.text) <= max_tokens:
            unit = wide
        found.append(unit)
        texts |= {plain(passage.text) for passage in unit.passages}
        max_tokens -= estimate_tokens(unit.text)
        if len(found) == _MOST_UNITS:
            break
    return found


def widen(passages: Sequence[Passage], unit: AnswerUnit, shown: Collection[str]) -> AnswerUnit:
    """Returns a unit with its neighbours below the same heading, after and before it in turn.

    Args:
        passages: Those of its source.
        unit: The unit.
        shown: Plain texts of passages that are shown already.
    """
    taken = list(unit.passages)
    first = last = passages.index(taken[-1])
    # Its lead, or the header of its table, may stand far above it.
    while first and passages[first - 1] in taken:
        first -= 1
    path, size, steps = taken[-1].path, len(unit.text), {1: last, -1: first}
    while steps:
        for step in tuple(steps):
            at = steps[step] = steps[step] + step
            one = passages[at] if 0 <= at < len(passages) else None
            fits = one and size + len(one.text) <= _WIDE_CHARACTERS and one.path == path
            if one is None or not fits or plain(one.text) in shown:
                del steps[step]
            elif one not in taken:
                taken.append(one)
                size += len(one.text)
    return AnswerUnit(tuple(sorted(taken, key=lambda one: one.start)))


def _shown(
    sources: Sequence[EvidenceSource], spans: Sequence[Span], gap: str
) -> Iterator[AnswerPiece]:
    """Yields a piece for each span; the first one follows the text before with a gap."""
    before: Span | None = None
    for span in spans:
        first = span.passages[0]
        said = sources[span.source].text(span)
        # Lines of prose are wrapped by whoever shows them.
        said = clean_text(said) if _is_prose(span.passages) else _clean_lines(said)
        in_list = first.marker and (before is not None or len(span.passages) > 1)
        body = f"{first.marker}{said}" if in_list else said
        own_line = in_list or first.kind is Kind.CODE
        lead = gap
        if before is not None:
            last = before.passages[-1]
            lead = "\n" if own_line or last.kind is Kind.CODE or last.marker else " "
        if before is None or before.source != span.source or before.passages[-1].path != first.path:
            label = _short(clean_text(label_of(sources[span.source], first)))
            if 0 < len(label) <= _TITLE_CHARACTERS and not _shares_word(label, said):
                # A sentence of a manual seldom names its subject; its heading or title does.
                ends = "" if label[-1] in ".:?!" else ":"
                gap_after = "\n" if own_line else " "
                body = f"{label}{ends}{gap_after}{body}"
        # A fence must end its line.
        end = "\n" if span.passages[-1].kind is Kind.CODE else ""
        yield AnswerPiece(f"{lead}{defuse_text(body)}{end}", [span], [1.0])
        before = span


def _clean_lines(text: str) -> str:
    """Returns the lines of a stored text for use in an answer; those of code are unchanged."""
    lines, in_code = [], False
    for line in strip_hidden_text(text).split("\n"):
        fence = line.lstrip().startswith(("```", "~~~"))
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(line if fence or in_code else f"{indent}{clean_text(line)}".rstrip())
        in_code ^= fence
    return "\n".join(lines)


def _short(label: str) -> str:
    """Returns the label of a function without its parameters if it is long."""
    name, call, _ = label.partition("(")
    return f"{name}()" if call and len(label) > _TITLE_CHARACTERS else label


def _shares_word(title: str, sentence: str) -> bool:
    """Returns whether a sentence has a word of a title, and so names the subject itself.

    The name of a function or setting is named only as a whole.
    """
    if _CODE.search(title):
        return title.partition("(")[0] in sentence
    words = {word.casefold() for word in _SUBJECT.findall(title)}
    return title in sentence or not words.isdisjoint(_SUBJECT.findall(sentence.casefold()))


def _spans(sources: Sequence[EvidenceSource], passages: Sequence[Passage]) -> Iterator[Span]:
    """Yields runs of passages of one chunk with nothing but spaces and markers between them."""
    run: list[Passage] = []
    for passage in passages:
        if run and _adjoins(sources, run[-1], passage):
            run.append(passage)
            continue
        if run:
            yield Span(run)
        run = [passage]
    if run:
        yield Span(run)


def _adjoins(sources: Sequence[EvidenceSource], before: Passage, after: Passage) -> bool:
    if (before.document, before.chunk) != (after.document, after.chunk) or after.start < before.end:
        return False
    hit = sources[after.document].chunk(after.chunk)
    between = (hit.text or "")[before.end - hit.start : after.start - hit.start]
    return between.strip() == after.marker.strip()
