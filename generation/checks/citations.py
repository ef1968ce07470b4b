"""Hashes cited spans, and checks citations against the documents that are served now."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence

from generation.checks.hidden_text import strip_hidden_text
from generation.checks.markers import escape_markers
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.access.readers import ReaderFilter
from nearline.contract import Citation, CitationCheck, Verdict
from nearline.errors import NotReady
from nearline.filters import Filter, admits
from nearline.wire.limits import BATCH, check_count

_WORD_START = re.compile(r"(?<!\S)\S")
# Maximum code points hashed per citation. The caller chooses the length of a span, up to a whole
# document, so the work needs a bound.
_MOST_HASHED = 1 << 25
_PAYLOAD = frozenset({c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})


def text_hash(text: str) -> str:
    """Returns the SHA-256 of a text in UTF-8, lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def span_matches(citation: Citation, start: int, text: str) -> bool:
    """Returns whether the span of a citation has the cited text.

    Args:
        citation: The citation; its offsets refer to the stored text.
        start: Offset in the stored text at which `text` begins.
        text: The part of the stored text that was read.
    """
    first, last = citation.char_start - start, citation.char_end - start
    if not 0 <= first < last <= len(text):
        return False
    return text_hash(text[first:last]) == citation.text_hash


def check_citation(citation: Citation, text: str | None) -> CitationCheck:
    """Returns the verdict on a citation.

    Args:
        citation: Its span and hash.
        text: Current text of the document; None if it is no longer served.
    Returns: The verdict. If the text occurs several times, the occurrence nearest to the old place
        counts. Only starts of words are tried, so a text that has since been joined to other
        characters counts as changed. This takes one hash per word of the document; in a very long
        document only the words nearest to the old place are tried.
    """
    if text is None:
        return CitationCheck(Verdict.GONE)
    if span_matches(citation, 0, text):
        return CitationCheck(Verdict.VALID, citation.char_start, citation.char_end)
    length = citation.char_end - citation.char_start
    if 0 < length <= len(text):
        starts = [match.start() for match in _WORD_START.finditer(text, 0, len(text) - length + 1)]
        nearest = sorted(starts, key=lambda start: abs(start - citation.char_start))
        for start in nearest[: _MOST_HASHED // length + 1]:
            if text_hash(text[start : start + length]) == citation.text_hash:
                return CitationCheck(Verdict.MOVED, start, start + length)
    return CitationCheck(Verdict.CHANGED)


def clean_text(text: str) -> str:
    """Returns stored text for use in an answer: one line, no hidden characters, no false markers.

    A stored "[12]" would read as a marker of the answer, so it becomes "(12)".
    """
    return escape_markers(" ".join(strip_hidden_text(text).split()))


class CitationVerifier:
    """Checks citations against the current texts of the cited documents.

    Args:
        retriever: Reads the documents.
        readers: Rights of callers; a document that a caller may not see counts as gone.
    """

    def __init__(self, retriever: c.Retriever, readers: ReaderFilter) -> None:
        self._retriever = retriever
        self._readers = readers

    async def check(
        self,
        cited: Sequence[c.Citation],
        collection: str,
        timeout_s: float | None,
        caller: Caller,
        condition: Filter | None = None,
        min_watermark: bytes = b"",
    ) -> c.VerifyReply:
        """Returns the verdict on each citation; see `Generator.verify`.

        A document counts as gone if it does not match `condition`, or if the caller may not see it.
        Raises: InvalidRequest: there are no citations, or too many. NotReady: a shard does not
            respond.
        """
        check_count(len(cited), "citations", BATCH)
        ids = list(dict.fromkeys(one.document_id for one in cited))
        reply = await self._retriever.get_items(
            ids,
            _PAYLOAD,
            collection=collection,
            min_watermark=min_watermark,
            timeout_s=timeout_s,
        )
        away = [
            one.id for one in reply.ignored_ids if one.reason is c.IgnoredReason.SHARD_UNAVAILABLE
        ]
        if away:
            # The verdict is unknown, which is not GONE.
            raise NotReady(f"the shard of document {away[0]!r} does not respond; try again")
        texts = {
            item.id: item.text
            for item in reply.items
            if self._readers.sees(caller, item.attributes)
            and (condition is None or admits(condition, item.attributes))
        }

        def checked() -> list[c.CitationCheck]:
            return [check_citation(one, texts.get(one.document_id)) for one in cited]

        # In a thread, because a long document takes one hash per word.
        return c.VerifyReply(checks=await asyncio.to_thread(checked), info=reply.info)

    async def all_valid(
        self,
        cited: Sequence[c.Citation],
        collection: str,
        timeout_s: float | None,
        caller: Caller,
        condition: Filter | None = None,
        min_watermark: bytes = b"",
    ) -> bool:
        """Returns whether all citations are valid and in place; True if there are none."""
        if not cited:
            return True
        reply = await self.check(cited, collection, timeout_s, caller, condition, min_watermark)
        return all(one.verdict is c.Verdict.VALID for one in reply.checks)
