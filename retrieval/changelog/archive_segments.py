"""Segments of an archived change log: Parquet files with one row per change.

Columns: partition uint8; position int64; time_us int64, microseconds since 1970; document_id
string; kind string; change binary, a nearline.v1.Change; nonce binary, see `EntryChain` (segments
of older versions lack it). The rows of a partition are in order. The file metadata contains the
positions at which the segment begins and ends, and the nonces of the last changes up to its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.store.snapshot import PARTITIONS
from retrieval.changelog import codec
from retrieval.changelog.records import UNKNOWN_NONCES, ChangeEntry, Nonces
from retrieval.protocols.watermark import Watermark, decode_watermark

_BEFORE, _AFTER, _MADE = b"nearline.before", b"nearline.after", b"nearline.made_us"
_NONCES = b"nearline.nonces"
_SCHEMA = pa.schema(
    [
        ("partition", pa.uint8()),
        ("position", pa.int64()),
        ("time_us", pa.int64()),
        ("document_id", pa.string()),
        ("kind", pa.string()),
        ("change", pa.binary()),
        ("nonce", pa.binary()),
    ]
)
_BATCH_ROWS = 1_024


class ArchivedChange(NamedTuple):
    """A change as a row of a segment."""

    partition: int
    position: int
    time_us: int
    document_id: str
    kind: str
    change: bytes
    nonce: bytes


class SegmentPositions(NamedTuple):
    """The positions of a segment's changes: (n,) partitions, positions, times in us, all int64."""

    partitions: NDArray[np.int64]
    positions: NDArray[np.int64]
    times_us: NDArray[np.int64]


def archive_row(entry: ChangeEntry) -> ArchivedChange:
    """Converts a log entry to a row."""
    change = entry.change
    return ArchivedChange(
        entry.partition,
        entry.position,
        entry.time_us,
        change.document_id,
        change.kind.value,
        codec.encode_change(change),
        entry.nonce,
    )


def encode_segment(
    rows: Sequence[ArchivedChange],
    before: Watermark,
    after: Watermark,
    nonces: Nonces = UNKNOWN_NONCES,
) -> bytes:
    """Encodes a segment.

    Args:
        rows: In order within each partition; may be empty.
        before, after: Positions up to which the log is archived without and with this segment.
        nonces: Of the changes at `after`.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_SCHEMA)
    arrays = [
        pa.array(values, column.type) for values, column in zip(columns, _SCHEMA, strict=True)
    ]
    made_us = time.time_ns() // 1_000
    metadata = {
        _BEFORE: before.encode(),
        _AFTER: after.encode(),
        _MADE: str(made_us).encode(),
        _NONCES: b",".join(nonces),
    }
    table = pa.Table.from_arrays(arrays, schema=_SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_BATCH_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


class LogSegment:
    """A decoded segment.

    Args:
        data: The encoded segment.
        name: Name for error messages.
    Raises: SnapshotCorrupt: not a valid segment.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._name = name
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data))
            metadata = self._file.schema_arrow.metadata or {}
            before = decode_watermark(metadata.get(_BEFORE, b""), "segment")
            after = decode_watermark(metadata.get(_AFTER, b""), "segment")
            self.made_us = int(metadata.get(_MADE, b"0"))
            nonces = tuple(metadata.get(_NONCES, b"").split(b","))
        except (pa.ArrowException, OSError, ValueError, InvalidRequest) as error:
            raise self._corrupt(error) from error
        if before is None or after is None:
            raise self._corrupt("its metadata lacks the start or end position")
        self.before: Watermark = before
        self.after: Watermark = after
        self.nonces: Nonces = nonces if len(nonces) == PARTITIONS else UNKNOWN_NONCES
        self.changes: int = self._file.metadata.num_rows

    def positions(self) -> SegmentPositions:
        """Returns the positions of its changes, without decoding the changes."""
        try:
            # Columns that the file lacks are omitted from the table.
            table = self._file.read(list(_POSITIONS))
            return SegmentPositions(
                *(table.column(name).to_numpy().astype(np.int64) for name in _POSITIONS)
            )
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._corrupt(error) from error

    def entries(self, start: Watermark) -> Iterator[ChangeEntry]:
        """Yields the changes after a position, in order within each partition.

        Raises: SnapshotCorrupt: a row cannot be read.
        """
        has_nonces = "nonce" in self._file.schema_arrow.names
        names = [*_POSITIONS, "change", *(("nonce",) if has_nonces else ())]
        try:
            for batch in self._file.iter_batches(_BATCH_ROWS):
                for row in zip(*(batch.column(name) for name in names), strict=True):
                    partition, position, time_us = (value.as_py() for value in row[:3])
                    if position > start.positions[partition]:
                        change = codec.decode_change(row[3].as_py())
                        nonce = row[4].as_py() if has_nonces else b""
                        yield ChangeEntry(partition, position, time_us, change, nonce)
        except (pa.ArrowException, OSError, TypeError, LookupError, InvalidRequest) as error:
            raise self._corrupt(error) from error

    def _corrupt(self, reason: Any) -> SnapshotCorrupt:
        return SnapshotCorrupt(
            f"{self._name} is not a readable segment of a change log ({reason}); restore it"
        )


_POSITIONS = ("partition", "position", "time_us")
