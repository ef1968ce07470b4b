"""Reads HTML and PDF in a process of its own, so that no file can take a build down.

A parser of such files can be led to work for days, to fill the memory or to crash. The process has
a bound for each, and only the file that met it is lost.
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
    """Reads files one after another; its process starts with the first, and again after a crash.

    Args:
        timeout_s: Seconds that a file may take.
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

        Attribute `path` is its id, and `pages` counts the pages of a PDF. A file without a title
        has its name, without the ending.
        """
        location = SourceLocation(source, 1)
        answer = self._ask(path)
        if "reason" in answer:
            bad_rows.add(location, str(answer["reason"]))
            return
        pages = answer["pages"]
        assert isinstance(pages, int)
        counted = {"pages": pages} if pages else {}
        yield SourceRow(
            location,
            Item(
                id=document_id,
                title=str(answer["title"]) or path.stem,
                text=str(answer["text"]),
                attributes={"path": document_id, **counted},
            ),
        )

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, path: Path) -> dict[str, object]:
        if self._process is None:
            # -P: no module beside the corpus may take the place of ours.
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
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(self._timeout_s, end)
        watch.start()
        try:
            process.stdin.write(json.dumps(str(path.absolute())) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if line.endswith("\n"):
            found: dict[str, object] = json.loads(line)
            return found
        self.close()
        if late.is_set():
            return {"reason": f"parsing took longer than {self._timeout_s:g} s; leave it out"}
        return {
            "reason": f"the parser ended with code {process.returncode}, for want of memory or by "
            "an error of its own; leave the file out"
        }
