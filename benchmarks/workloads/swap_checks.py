"""Checks that each reply of `nearline bench swap` is from a single snapshot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.workloads.swap_dataset import STAMPS, is_liked
from nearline import contract as c

_STAMP = re.compile(rf"\b({'|'.join(STAMPS)})\b")


@dataclass(frozen=True, slots=True)
class ReplyChecker:
    """Checks replies against the contents of the snapshots; methods return a problem, or an empty
    string.

    stamps: Stamps by snapshot id. texts: Texts by item id. lists: Ids of the first list of a user,
        by snapshot id and user id.
    """

    stamps: Mapping[str, str]
    texts: Mapping[str, str]
    lists: dict[tuple[str, str], Sequence[str]] = field(default_factory=dict)

    def search(self, reply: c.SearchReply) -> str:
        """Checks a search: ids and texts have the stamp, and each text belongs to its id."""
        return self._hits(reply.info.snapshot_id, reply.hits)

    def recommendations(self, reply: c.RecommendReply, audience: c.Audience) -> str:
        """Checks a list: like a search, and that it was trained on the data of its snapshot.

        A snapshot always returns the same list for a user. Lists for an item, and popular items,
        contain only documents with interactions in that snapshot.
        """
        snapshot_id = reply.info.snapshot_id
        hits = [recommendation.hit for recommendation in reply.recommendations]
        if problem := self._hits(snapshot_id, hits):
            return problem
        stamp = self.stamps[snapshot_id]
        foreign = [one for one in audience.item_ids if _stamp_of(one) != stamp]
        ignored = [one.id for one in reply.ignored_ids]
        if ignored != foreign:
            return f"a list from {stamp} ignored {ignored}, but {foreign} are not its items"
        if not audience.user_id:
            liked = sum(is_liked(stamp, _row_of(hit.id)) for hit in hits)
            return (
                ""
                if liked == len(hits)
                else f"{stamp} was trained on only {liked} of {len(hits)} items of a list"
            )
        if reply.info.coverage.missing_shards:
            return ""
        ids = [hit.id for hit in hits]
        before = self.lists.setdefault((snapshot_id, audience.user_id), ids)
        if ids != before:
            return f"{stamp} returned {ids} for {audience.user_id}, but {before} before"
        return ""

    def answer(self, events: Sequence[c.AnswerEvent]) -> str:
        """Checks an answer: its evidence, text and citations, including the cited spans."""
        evidence = events[0]
        assert isinstance(evidence, c.Evidence), "the first event of an answer is its evidence"
        snapshot_id = evidence.info.snapshot_id
        if problem := self._hits(snapshot_id, evidence.documents):
            return problem
        stamp = self.stamps[snapshot_id]
        text = "".join(event.text for event in events if isinstance(event, c.Delta))
        if text and (found := find_stamps([text])) != {stamp}:
            return f"an answer from {stamp} says {_join(found)}: {text[:200]!r}"
        shown = {hit.id for hit in evidence.documents}
        for event in events:
            if isinstance(event, c.Citation):
                where = f"an answer from {stamp} cites {event.document_id}"
                if event.snapshot_id != snapshot_id:
                    return f"{where} of {event.snapshot_id}"
                if event.document_id not in shown:
                    return f"{where}, which is not in its evidence"
                cited = self.texts[event.document_id][event.char_start : event.char_end]
                if hashlib.sha256(cited.encode()).hexdigest() != event.text_hash:
                    return f"{where}, which does not have that text"
        return ""

    def _hits(self, snapshot_id: str, hits: Sequence[c.Hit]) -> str:
        stamp = self.stamps.get(snapshot_id)
        if stamp is None:
            return f"there is no snapshot {snapshot_id!r}"
        found = {_stamp_of(hit.id) for hit in hits}
        if found != {stamp}:
            return f"a reply from {stamp} has ids of {_join(found)}"
        for hit in hits:
            parts = [part for part in (hit.title, hit.text) if part is not None]
            if any(find_stamps([part]) != {stamp} for part in parts):
                return f"a reply from {stamp} has {' / '.join(parts)!r} for {hit.id}"
            if hit.text is not None and hit.text not in self.texts.get(hit.id, ""):
                return f"a reply from {stamp} has a text that {hit.id} does not have"
        return ""


def find_stamps(texts: Iterable[str]) -> set[str]:
    """Returns the stamps in texts."""
    return {stamp for text in texts for stamp in _STAMP.findall(text)}


def _stamp_of(one: str) -> str:
    return one.partition("-")[0]


def _row_of(one: str) -> int:
    return int(one.rpartition("-d")[2])


def _join(stamps: Iterable[str]) -> str:
    return " and ".join(sorted(stamps)) or "none"
