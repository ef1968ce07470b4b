"""A line that says how far a call has come, where somebody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

from nearline.durations import RemainingTime

_FIRST_S: Final = 2.0
_EACH_S: Final = 0.2


class ProgressLine:
    """Writes to stderr what is done, from two seconds on, and removes it at the end.

    It is written in a terminal and in a notebook, and nowhere else.

    Args:
        what: What is counted, in the plural.
        shown: False never writes it.
        stream, clock: Of tests: where it is written, and the time in seconds.
    """

    def __init__(
        self,
        what: str,
        *,
        shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._shown = shown and _is_watched(self._stream)
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + _FIRST_S
        self._left = RemainingTime(clock)
        self._width = 0

    def reach(self, done: int, total: int) -> None:
        """Notes how much is done; total: 0 if it is not known yet."""
        if not self._shown:
            return
        now_s = self._clock()
        if total:
            self._left.update(done, total)
        if now_s < self._next_s:
            return
        self._next_s = now_s + _EACH_S
        pace = done / (now_s - self._began_s)
        text = f"{done:,} of {total:,} {self._what}, {pace:,.0f} per second"
        if (left_s := self._left.seconds()) is not None:
            text += f", {left_s:,.0f} s left"
        self._write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text:<{self._width}}")
        self._stream.flush()
        self._width = len(text)


def _is_watched(stream: TextIO) -> bool:
    # The stderr of a notebook is no terminal.
    return stream is not None and (stream.isatty() or "ipykernel" in sys.modules)
