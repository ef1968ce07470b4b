"""Decoding of log entries from Redis, and checks that they continue what was read before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nearline.errors import SnapshotMismatch
from retrieval.changelog.change_log import LogDiverged
from retrieval.changelog.codec import decode_change
from retrieval.changelog.records import ChangeEntry


class PartitionHead(NamedTuple):
    """The metadata of a partition.

    log_id: Empty if the partition does not exist. nonce: Nonce of the last entry; the log id if
    there is none. time_us: Of the last entry. replicas: That must have an entry before it is
    acknowledged, as its writer says; None if an older version wrote it.
    """

    log_id: str
    seq: int
    trimmed: int
    nonce: bytes
    time_us: int = 0
    replicas: int | None = None


HEAD_FIELDS = ("log", "seq", "trimmed", "nonce", "time", "replicas")


def parse_head(reply: Sequence[bytes | None]) -> PartitionHead:
    """Parses the reply to HMGET of HEAD_FIELDS."""
    log_id, seq, trimmed, nonce, time_us, replicas = reply
    return PartitionHead(
        (log_id or b"").decode(),
        int(seq or 0),
        int(trimmed or 0),
        nonce or b"",
        int(time_us or 0),
        None if replicas is None else int(replicas),
    )


class RawEntry(NamedTuple):
    """An entry as returned by Redis."""

    partition: int
    position: int
    fields: Mapping[bytes, bytes]


class EntryChain:
    """The position of a reader, which checks that new entries continue those read before.

    Every entry carries a nonce and the nonce of the previous entry. This detects a log that was set
    back (by a failover that lost changes, or by an old copy of its data) and continued differently,
    although its numbers have no gap.
    """

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        # By partition: the last entry read, and its nonce.
        self._last: dict[int, tuple[int, bytes]] = {}
        # By partition: a position that the head of the log has reached.
        self._promised: dict[int, int] = {}

    def knows(self, partition: int, after: int) -> bool:
        """Returns whether the nonce of the entry at `after` is known."""
        return self._nonce(partition, after) is not None

    def check_head(self, partition: int, after: int, head: PartitionHead) -> None:
        """Checks that a partition contains the entries read so far, and the next ones.

        Raises: SnapshotMismatch.
        """
        if after < head.trimmed:
            raise self._trimmed(partition, after, head.trimmed)
        nonce = self._nonce(partition, after)
        if after > head.seq or (after == head.seq and nonce not in (None, head.nonce)):
            raise self._set_back(partition, after)
        self._promised[partition] = head.seq

    def check_complete(self, after: Mapping[int, int], received: Iterable[int]) -> None:
        """Checks that every partition whose head promised more entries returned some.

        Raises: SnapshotMismatch: the entries of a partition are gone.
        """
        for partition in after.keys() - set(received):
            if after[partition] < self._promised.get(partition, 0):
                del self._promised[partition]
                raise self._set_back(partition, after[partition] + 1)

    def follow(self, partition: int, after: int, raw: Sequence[RawEntry]) -> None:
        """Checks that entries of a partition continue those read before, and records the last.

        Raises: SnapshotMismatch.
        """
        nonce = self._nonce(partition, after)
        for number, entry in enumerate(raw, after + 1):
            if entry.position != number:
                raise self._trimmed(partition, number - 1, entry.position - 1)
            if nonce not in (None, entry.fields[b"before"]):
                raise self._set_back(partition, number - 1)
            nonce = entry.fields[b"nonce"]
        if raw and nonce is not None:
            self._last[partition] = raw[-1].position, nonce

    def _nonce(self, partition: int, after: int) -> bytes | None:
        if after == 0:
            return self._log_id.encode()
        position, nonce = self._last.get(partition, (0, b""))
        return nonce if position == after else None

    def _trimmed(self, partition: int, after: int, trimmed: int) -> SnapshotMismatch:
        return SnapshotMismatch(
            f"changes {after + 1} to {trimmed} of partition {partition} are no longer in change "
            f"log {self._log_id}; serve a snapshot that contains them"
        )

    def _set_back(self, partition: int, after: int) -> LogDiverged:
        return LogDiverged(
            f"change log {self._log_id} was set back: change {after} of partition {partition} is "
            "gone or has been replaced; Redis lost acknowledged changes in a failover, or was "
            "restored from an old copy of its data: read again from the snapshot on"
        )


def decode_entries(raw: Sequence[RawEntry]) -> list[ChangeEntry]:
    """Decodes entries. Raises: SnapshotCorrupt."""
    return [
        ChangeEntry(
            partition,
            position,
            int(fields[b"time"]),
            decode_change(fields[b"change"]),
            fields[b"nonce"],
            fields[b"before"],
        )
        for partition, position, fields in raw
    ]
