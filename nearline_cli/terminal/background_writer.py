"""Writes to the terminal in a thread of its own, so that nobody waits for whoever reads it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from nearline.counts import counted
from nearline_cli.terminal import output

_MOST_LINES = 1_000
_Write = Callable[[], None]


class BackgroundWriter:
    """Runs functions that print, in order. What cannot be written is dropped.

    A pipe that is full because nobody reads it blocks its writer: that is only the thread.

    Args:
        on_broken: Called, in the thread, if the reader has gone. Optional.
        most: Functions that wait; further ones are counted and dropped.
    """

    def __init__(
        self,
        on_broken: Callable[[BrokenPipeError], None] = lambda error: None,
        most: int = _MOST_LINES,
    ) -> None:
        self._on_broken = on_broken
        self._most = most
        self._waiting: deque[_Write] = deque()
        self._dropped = 0
        self._is_writing = False
        self._changed = threading.Condition()
        # Nothing waits for a thread that hangs: see `flush`.
        threading.Thread(target=self._run, name="report", daemon=True).start()

    def put(self, write: _Write) -> None:
        """Lets the thread run a function; returns at once."""
        with self._changed:
            if len(self._waiting) >= self._most:
                self._dropped += 1
                return
            self._note_dropped()
            self._waiting.append(write)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything is written; returns whether it was in time.

        If not, the process must end by `os._exit`: Python's own exit waits for the same reader.
        """
        with self._changed:
            self._note_dropped()
            return self._changed.wait_for(
                lambda: not (self._waiting or self._is_writing), timeout_s
            )

    def _note_dropped(self) -> None:
        if self._dropped:
            lines = counted(self._dropped, "line")
            self._dropped = 0
            text = f"{lines} of the report were dropped, because nobody read them"
            self._waiting.append(lambda: output.print_note(text))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                write = self._waiting.popleft()
                self._is_writing = True
            try:
                write()
            except BrokenPipeError as error:
                self._on_broken(error)
            except OSError:
                continue
