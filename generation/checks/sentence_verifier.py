"""Checks the answer of a model, sentence by sentence, against the passages that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from generation.checks.draft_parser import DraftSentence
from generation.checks.groundedness import (
    Groundedness,
    GroundednessRules,
    best_passages,
    check_groundedness,
    count_unknown_stems,
)
from generation.checks.link_filter import REMOVED_LINK, filter_links, find_addresses
from generation.checks.markers import MARKER_PATTERN, NOT_ANSWERED, parse_marker
from generation.checks.quantities import extract_quantities
from generation.evidence.sources import EvidenceSource, PromptChunk, Span

NO_SOURCE = "no source is named"

# Maximum words of a lead-in; a longer text makes a statement of its own.
_LEAD_IN_WORDS = 12
_MOST_LEAD_INS = 3
# Words of a lead-in that the model may add itself, such as "Steps to", "in short" or "care".
_MOST_UNKNOWN = 1
# Parts of the prompt that a model may repeat: fences, and separators of the roles.
_PROMPT_SIGNS = re.compile(
    r"<{1,2}(?:end of )?(?:passage|conversation)\b[^<>\n]{0,100}>{0,2}|\[/?INST\]|</?s>"
    r"|<\|[^|<>\n]{0,40}\|>|<(?:start|end)_of_turn>",
    re.IGNORECASE,
)
_HEADING = re.compile(r"#{1,6}\s+")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s+")
_EMPHASIS = re.compile(r"\*\*|__|`")
_CODE_OR_MARKER = re.compile(
    # Possessive, and never starting within a word: otherwise the time is quadratic.
    rf"`[^`\n]*`|(?<!\w)(?P<word>\w++)(?P<glued>(?:\[\d{{1,4}}\])+)|[ \t]?(?:{MARKER_PATTERN})",
    re.IGNORECASE,
)


class VerifiedSentence(NamedTuple):
    """A sentence that may be sent.

    text: The sentence without markers, with the white space before it.
    spans: The cited spans, in the order in which the sentence names them.
    support: Support by each span, 0..1.
    problems: Why the evidence does not support the sentence; empty if it does.
    body: The statement, without markup.
    """

    text: str
    spans: Sequence[Span]
    support: Sequence[float]
    problems: tuple[str, ...]
    body: str = ""

    @property
    def supported(self) -> bool:
        """Whether the evidence supports it."""
        return not self.problems


class SentenceVerifier:
    """Checks the sentences of one answer, in order.

    A sentence is supported if its named sources support it, see `check_groundedness`. A sentence
    without a marker is not supported, with these exceptions:
    - A heading, or a lead-in that ends with a colon: up to twelve words without a number. It is
      sent with the text that follows it, or not at all.
    - The first row of a table, in the same way.
    - An item of a list, a row or code after a colon, which uses the sources of the lead-in.
    - Code, which uses the sources of the sentence before it.

    A bracket directly after a word (`minutes[1]`) is code if the evidence contains exactly the same
    text, and a marker otherwise.

    Args:
        shown: The chunks that the model was shown, by number.
        sources: The evidence.
        question: The question that the model was asked.
        mark: Whether to return unsupported sentences with their problems; if False, they are
            omitted.
        rules: Strictness; if None, the defaults for generated text apply.
    """

    def __init__(
        self,
        shown: Sequence[PromptChunk],
        sources: Sequence[EvidenceSource],
        question: str,
        *,
        mark: bool,
        rules: GroundednessRules | None = None,
    ) -> None:
        self._shown = shown
        self._sources = sources
        self._question = question
        self._mark = mark
        self._rules = rules or GroundednessRules()
        self._evidence = "\n".join(
            f"{source.best.title or ''}\n{source.text(Span(one.passages))}"
            for one in shown
            for source in (sources[one.source],)
        )
        self._allowed = find_addresses([self._evidence])
        self._lead_ins: list[str] = []
        self._in_table = self._dropped_after_lead_in = False
        self._previous_markers: tuple[int, ...] = ()
        self._lead_in_markers: tuple[int, ...] = ()
        # Whether the model stated that the passages do not answer the question.
        self.declined = False
        self.dropped_sentences = 0
        self.dropped_markers = 0
        self.removed_links = 0

    def verify(self, draft: DraftSentence) -> VerifiedSentence | None:
        """Checks the next sentence.

        Returns: The sentence; None if nothing is to be sent, or not yet.
        """
        checked = self.check(draft)
        return None if checked is None else self.settle(checked)

    def check(self, draft: DraftSentence) -> VerifiedSentence | None:
        """Checks the next sentence, without deciding whether it is sent; see `settle`.

        Returns: The sentence; None if nothing is to be sent, or not yet.
        """
        self.dropped_markers += draft.dropped_markers
        text, markers = _PROMPT_SIGNS.sub("", draft.text), draft.markers
        if not draft.code:
            text, markers = self._unmarked(text, markers)
        text, removed = filter_links(text, self._allowed)
        self.removed_links += removed
        if not draft.code:
            # "&#91;9&#93;", or a bracket with a hidden character, becomes a marker only here.
            text, markers = self._unmarked(text, markers)
        row = text.startswith("|")
        first_row, self._in_table = row and not self._in_table, row
        says = any(sign.isalnum() for sign in text)
        if not says and not row:
            return None
        if text.strip(" .*`\"'").upper() == NOT_ANSWERED:
            self.declined = True
            return None
        if not says or (not draft.code and _is_lead_in(text, first_row)):
            self._dropped_after_lead_in = self._dropped_after_lead_in and bool(self._lead_ins)
            if says and not self._uses_known_words(text):
                # The text after it may still be sent, with the sources of the lead-in.
                self.dropped_sentences += 1
            elif len(self._lead_ins) < _MOST_LEAD_INS:
                self._lead_ins.append(draft.lead + text)
            if not row:
                self._previous_markers = self._lead_in_markers = markers
            return None
        if draft.code or row or _ITEM.match(text):
            markers = (
                markers or self._lead_in_markers or (self._previous_markers if draft.code else ())
            )
        else:
            self._lead_in_markers = ()
            if self._dropped_after_lead_in:
                # The text after the lead-ins was dropped; headings also cover later text.
                self._lead_ins = [one for one in self._lead_ins if _HEADING.match(one.strip())]
        self._previous_markers = markers
        return self._grounded(draft.lead + text, markers)

    def settle(self, verified: VerifiedSentence) -> VerifiedSentence | None:
        """Returns a checked sentence as it is sent; None if it is unsupported and omitted."""
        if verified.problems and not self._mark:
            self.dropped_sentences += 1
            self._dropped_after_lead_in = True
            return None
        text = "".join([*self._lead_ins, verified.text])
        self._lead_ins, self._dropped_after_lead_in = [], False
        return verified._replace(text=text)

    def _grounded(self, text: str, markers: Sequence[int]) -> VerifiedSentence:
        body = _body(text)
        spans = [self._span(body, self._shown[number - 1]) for number in markers]
        if not spans:
            return VerifiedSentence(text, (), (), (NO_SOURCE,), body)
        support = [self._grounding(body, [span]).score for span in spans]
        # Spans that add nothing are not cited if others do.
        least = self._rules.floor / 2
        kept = [at for at, score in enumerate(support) if score >= least] or [*range(len(spans))]
        self.dropped_markers += len(spans) - len(kept)
        spans, support = [spans[at] for at in kept], [support[at] for at in kept]
        return VerifiedSentence(text, spans, support, self._grounding(body, spans).problems, body)

    def _uses_known_words(self, text: str) -> bool:
        """Returns whether the words of a lead-in occur in the evidence or the question."""
        known = f"{self._evidence}\n{self._question}"
        return count_unknown_stems(_body(text), known, self._rules.language) <= _MOST_UNKNOWN

    def _span(self, body: str, shown: PromptChunk) -> Span:
        title = self._sources[shown.source].best.title or ""
        return Span(
            best_passages(
                body, shown.passages, title=title, question=self._question, rules=self._rules
            )
        )

    def _grounding(self, body: str, spans: Sequence[Span]) -> Groundedness:
        sources = [self._sources[span.source] for span in spans]
        return check_groundedness(
            body,
            " ".join(source.text(span) for source, span in zip(sources, spans, strict=True)),
            title="\n".join({source.best.title or "": None for source in sources}),
            question=self._question,
            rules=self._rules,
        )

    def _unmarked(self, text: str, markers: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        found = dict.fromkeys(markers)

        def without(match: re.Match[str]) -> str:
            marker = match["glued"] or match["marker"]
            if marker is None or (match["glued"] and match.group() in self._evidence):
                return match.group()
            numbers, dropped = parse_marker(marker, len(self._shown))
            found.update(dict.fromkeys(numbers))
            self.dropped_markers += dropped
            return match["word"] or ""

        return _CODE_OR_MARKER.sub(without, text), tuple(found)


def _is_lead_in(text: str, first_row: bool) -> bool:
    said = _EMPHASIS.sub("", text)
    if not first_row and not _HEADING.match(said) and not said.endswith((":", "：")):
        return False
    body = _body(said)
    return len(body.replace("|", " ").split()) <= _LEAD_IN_WORDS and not any(
        extract_quantities(body)
    )


def _body(text: str) -> str:
    """Returns the statement of a text, without markup."""
    text = _EMPHASIS.sub("", text.strip()).replace(REMOVED_LINK, "")
    return _ITEM.sub("", _HEADING.sub("", text, count=1), count=1).strip()
