"""Entries of the log as they come from Redis: decoded, and held against what came before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nearline.errors import SnapshotMismatch
from retrieval.changelog.change_log import LogDiverged
from retrieval.changelog.codec import decode_change
from retrieval.changelog.records import ChangeEntry


class PartitionHead(NamedTuple):
    """What one partition says of itself.

    log_id: Empty where there is none. nonce: Of the last entry; the log id before the first.
    """

    log_id: str
    seq: int
    trimmed: int
    nonce: bytes


HEAD_FIELDS = ("log", "seq", "trimmed", "nonce")


def parse_head(reply: Sequence[bytes | None]) -> PartitionHead:
    """Reads the answer to HMGET of HEAD_FIELDS."""
    log_id, seq, trimmed, nonce = reply
    return PartitionHead((log_id or b"").decode(), int(seq or 0), int(trimmed or 0), nonce or b"")


class RawEntry(NamedTuple):
    """An entry as Redis gives it."""

    partition: int
    position: int
    fields: Mapping[bytes, bytes]


class EntryChain:
    """The place of one reader in the log: that what it reads next follows what it read last.

    Every entry carries a random word and that of the entry before. A log that was set back (by a
    failover that lost changes, or an old copy of its data) and went on differently so shows itself
    although its numbers have no gap.
    """

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        # By partition: the last entry read, and its word.
        self._last: dict[int, tuple[int, bytes]] = {}
        # By partition: a number that its head has had.
        self._promised: dict[int, int] = {}

    def knows(self, partition: int, after: int) -> bool:
        """Returns whether it can say that an entry follows the one at `after`."""
        return self._word(partition, after) is not None

    def check_head(self, partition: int, after: int, head: PartitionHead) -> None:
        """Checks that a partition has what was read, and still has what comes next.

        Raises: SnapshotMismatch.
        """
        if after < head.trimmed:
            raise self._trimmed(partition, after, head.trimmed)
        word = self._word(partition, after)
        if after > head.seq or (after == head.seq and word not in (None, head.nonce)):
            raise self._set_back(partition, after)
        self._promised[partition] = head.seq

    def check_came(self, after: Mapping[int, int], came: Iterable[int]) -> None:
        """Checks that entries came of every partition whose head had promised some.

        Raises: SnapshotMismatch: the entries of one are gone.
        """
        for partition in after.keys() - set(came):
            if after[partition] < self._promised.get(partition, 0):
                del self._promised[partition]
                raise self._set_back(partition, after[partition] + 1)

    def follow(self, partition: int, after: int, raw: Sequence[RawEntry]) -> None:
        """Checks that entries of one partition follow what was read, and remembers the last.

        Raises: SnapshotMismatch.
        """
        word = self._word(partition, after)
        for number, entry in enumerate(raw, after + 1):
            if entry.position != number:
                raise self._trimmed(partition, number - 1, entry.position - 1)
            if word not in (None, entry.fields[b"before"]):
                raise self._set_back(partition, number - 1)
            word = entry.fields[b"nonce"]
        if raw and word is not None:
            self._last[partition] = raw[-1].position, word

    def _word(self, partition: int, after: int) -> bytes | None:
        if after == 0:
            return self._log_id.encode()
        position, word = self._last.get(partition, (0, b""))
        return word if position == after else None

    def _trimmed(self, partition: int, after: int, trimmed: int) -> SnapshotMismatch:
        return SnapshotMismatch(
            f"changes {after + 1} to {trimmed} of partition {partition} are no longer in change "
            f"log {self._log_id}; serve a snapshot that has them"
        )

    def _set_back(self, partition: int, after: int) -> LogDiverged:
        return LogDiverged(
            f"change log {self._log_id} was set back: change {after} of partition {partition} is "
            "gone or another one now; Redis lost acknowledged changes in a failover, or was given "
            "an old copy of its data: read again from the snapshot on"
        )


def decode_entries(raw: Sequence[RawEntry]) -> list[ChangeEntry]:
    """Decodes entries. Raises: SnapshotCorrupt."""
    return [
        ChangeEntry(partition, position, int(fields[b"time"]), decode_change(fields[b"change"]))
        for partition, position, fields in raw
    ]
