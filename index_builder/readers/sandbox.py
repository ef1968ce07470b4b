"""Parses HTML and PDF in a separate process, so that no file can take a build down.

Malicious files can make a parser run for days, exhaust the memory or crash. The process has limits
for each, and only the offending file is lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceLocation, SourceRow
from nearline.contract import Item

TIMEOUT_S = 120.0
MEMORY_BYTES = 4 << 30


class SandboxReader:
    """Reads files one after another; the process starts with the first, and again after a crash.

    Args:
        timeout_s: Seconds allowed per file.
        memory_bytes: Address space of the process.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[str] | None = None

    def read(
        self, path: Path, source: str, document_id: str, bad_rows: BadRows
    ) -> Iterator[SourceRow]:
        """Yields the one document of a file; a malformed one is counted.

        Its attribute `path` is its id, and `pages` the number of pages of a PDF. Without a title,
        its title is the file's name without the suffix.
        """
        location = SourceLocation(source, 1)
        reply = self._parse(path)
        if "reason" in reply:
            bad_rows.add(location, str(reply["reason"]))
            return
        pages = reply["pages"]
        assert isinstance(pages, int)
        page_count = {"pages": pages} if pages else {}
        yield SourceRow(
            location,
            Item(
                id=document_id,
                title=str(reply["title"]) or path.stem,
                text=str(reply["text"]),
                attributes={"path": document_id, **page_count},
            ),
        )

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _parse(self, path: Path) -> dict[str, object]:
        if self._process is None:
            # -P: no module next to the corpus may shadow ours.
            command = [sys.executable, "-P", "-m", "index_builder.readers.sandbox_main"]
            self._process = subprocess.Popen(
                [*command, str(self._memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        timed_out = threading.Event()

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._timeout_s, kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(str(path.absolute())) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            found: dict[str, object] = json.loads(line)
            return found
        self.close()
        if timed_out.is_set():
            return {"reason": f"parsing took longer than {self._timeout_s:g} s; omit the file"}
        return {
            "reason": f"the parser crashed or ran out of memory (exit code {process.returncode}); "
            "omit the file"
        }
