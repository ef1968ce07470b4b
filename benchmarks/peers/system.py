"""A measured system: a server, a blocking client, and what has to be installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.dataset import Condition, PeerDataset
from nearline.errors import Unsupported

DEFAULT_WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Place(NamedTuple):
    """Where a system runs.

    dataset: Folder of the data set. folder: Its own folder; a server that starts there again has
    its data back. live: Whether it is written to while it is searched.
    """

    dataset: Path
    folder: Path
    live: bool


class PeerClient:
    """Blocking client of a system, shared by the threads of one process.

    Args:
        address: What the system's `serve` yields.
        dataset: The data set.
    """

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        self.address = address
        self.dataset = dataset

    def load(self) -> None:
        """Writes all rows, and waits until they are indexed. Does nothing if the server has them
        from the start.
        """

    def use_width(self, width: int) -> None:
        """Sets the width of searches, where it is no argument of them: see `width_at_start`."""

    def search(
        self, vector: NDArray[np.float32], width: int, condition: Condition | None, payload: bool
    ) -> Sequence[int]:
        """Returns the k best rows for a vector, best first; with `payload`, also fetches their
        texts.
        """
        raise NotImplementedError

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Adds or replaces rows. Rows beyond those of the data set are new.

        Raises Unsupported: The system has no writes.
        """
        raise Unsupported("this system has no writes")

    def search_written(self, vector: NDArray[np.float32], width: int) -> Sequence[int]:
        """Searches what was written by this client, too, where the system can wait for that."""
        return self.search(vector, width, None, False)

    def close(self) -> None:
        """Closes the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A measured system.

    name: As `--systems` names it. label: As tables and plots name it, with settings of its index.
    client: Opened in the process of the callers and in that of the writer. serve: Runs the server
    for the duration of the block; yields its address. missing: Returns what to install; empty if
    nothing. widths: Widths to measure. writes, filters: Whether it has them. shared_snapshot:
    Whether it serves the snapshot that Nearline builds. width_at_start: Whether the width is a
    setting that the server reads when it starts.
    """

    name: str
    label: str
    client: type[PeerClient]
    serve: Callable[[Place], AbstractAsyncContextManager[str]]
    missing: Callable[[], str] = str
    widths: Sequence[int] = DEFAULT_WIDTHS
    writes: bool = True
    filters: bool = True
    shared_snapshot: bool = False
    width_at_start: bool = False
