"""Reads files in a separate process with limits, so that no file can take a build or worker down.

Malicious files can make a parser run for days, exhaust the memory or crash; a few bytes may
decompress to gigabytes. Every format is read there, and only the offending file is lost. The
process may use so much CPU time and address space, few open files, no disk, no credentials from the
environment, and no network where the kernel allows that; it ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from index_builder.documents.bad_rows import BadRow, BadRows, DamagedFile
from index_builder.documents.records import SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.formats import is_one_document
from index_builder.readers.frames import MAX_FRAME_BYTES, row_of, unpack
from nearline.errors import InvalidRequest

TIMEOUT_S = 120.0
MEMORY_BYTES = 4 << 30
OPEN_FILES = 64
# Tables are read twice to find the types of their columns, which takes long for large ones.
_TABLE_BYTES_PER_S = 2 << 20
# Inherited: those that find libraries and read texts. Any other may hold a credential.
_INHERITED = (
    *("PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONUTF8"),
)
# Libraries reserve address space for each thread, which counts against the limit.
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_PIPE_BYTES = 1 << 20
_DEFAULT_COLUMNS = DocumentColumns()


class SandboxReader:
    """Reads files one after another; the process starts with the first, and again after a crash.

    Args:
        timeout_s: Seconds allowed until a document or the next rows are read; tables are allowed
            more by their size.
        memory_bytes: Address space of the process.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(
        self,
        path: Path,
        source: str,
        document_id: str,
        bad_rows: BadRows,
        columns: DocumentColumns = _DEFAULT_COLUMNS,
        title: str = "",
    ) -> Iterator[SourceRow]:
        """Yields the rows of a file; malformed ones are counted. See `formats.read_file`.

        A caller that does not read to the end ends the process. Without a title, the name of the
        file takes its place.

        Raises: DamagedFile: the rest of the file cannot be read. InvalidRequest: a table lacks a
            named column.
        """
        limit_s = self._timeout_s
        if not is_one_document(path.name):
            limit_s += path.stat().st_size / _TABLE_BYTES_PER_S
        request = {
            "path": str(path.absolute()),
            "source": source,
            "document_id": document_id,
            "title": title or path.stem,
            "columns": asdict(columns),
            # The clock on the wall comes first, unless the machine is busy.
            "cpu_s": int(limit_s) + 1,
        }
        line, ended = 1, False
        try:
            frame = self._exchange(request, limit_s, line)
            while True:
                ended = "end" in frame
                for entry in frame["rows"]:
                    row = row_of(entry, source)
                    line = row.location.line + 1
                    if isinstance(row, BadRow):
                        bad_rows.add(*row)
                    else:
                        yield row
                if ended:
                    break
                frame = self._exchange(None, limit_s, line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFile("the reader sent no rows; omit the file", line) from error
        finally:
            if not ended:
                self._end()
        if frame["end"]:
            _raise_end(frame)

    def close(self) -> None:
        """Ends the process for good; another thread may still be reading."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: no module next to the corpus may shadow ours.
        command = [sys.executable, "-P", "-m", "index_builder.readers.sandbox_main"]
        limits = {"memory_bytes": self._memory_bytes, "open_files": OPEN_FILES}
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process = subprocess.Popen(
            [*command, json.dumps(limits), str(os.getpid())],
            bufsize=_PIPE_BYTES,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**inherited, **_ENVIRONMENT},
        )
        if sys.platform == "linux" and process.stdout is not None:
            # Room for several frames lets both processes work at once.
            with contextlib.suppress(OSError):
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return process

    def _exchange(
        self, request: Mapping[str, object] | None, limit_s: float, line: int
    ) -> Mapping[str, Any]:
        """Sends a request, if there is one, and returns the next frame."""
        if self._closed:
            raise DamagedFile("the reader was closed before the file was read", line)
        fresh = self._process is None
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timed_out = threading.Event()

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(limit_s, kill)
        timer.start()
        try:
            if request is not None:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            reply = process.stdout.readline(MAX_FRAME_BYTES)
        except BrokenPipeError:
            reply = b""
        finally:
            timer.cancel()
        if reply.endswith(b"\n"):
            frame: Mapping[str, Any] = unpack(reply)
            return frame
        self._end()
        if process.returncode == -signal.SIGKILL and request is not None and not fresh:
            # It was ended while idle, for example with the thread that started it.
            if not timed_out.is_set():
                return self._exchange(request, limit_s, line)
        if timed_out.is_set() or process.returncode == -signal.SIGXCPU:
            raise DamagedFile(f"parsing took longer than {limit_s:g} s; omit the file", line)
        raise DamagedFile(
            f"the parser crashed or ran out of memory (exit code {process.returncode}); omit the "
            "file",
            line,
        )


def _raise_end(frame: Mapping[str, Any]) -> None:
    if frame["line"]:
        raise DamagedFile(frame["end"], frame["line"])
    raise InvalidRequest(frame["end"], field=frame.get("field", ""))
