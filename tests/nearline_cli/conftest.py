"""Fixtures: real commands in real processes, and a store that needs no model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import Item
from nearline_cli.main import main

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(*words: str) -> list[str]:
    """Returns the command line of `nearline`, run by this interpreter."""
    return [sys.executable, "-m", "nearline_cli.main", *words]


# Wide enough that no message is folded; never in colour.
_ENVIRON = {"COLUMNS": "300", "NO_COLOR": "1"}


@pytest.fixture
def nearline_process(tmp_path: Path) -> Run:
    """Returns a function that runs `nearline` as a process in an empty folder."""

    def run(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **_ENVIRON, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command(*words), cwd=tmp_path, env=environ, capture_output=True, text=True,
            timeout=timeout_s,
        )  # fmt: skip

    return run


@pytest.fixture
def nearline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Returns a function that runs `nearline` in this process, in an empty folder.

    A process takes most of a second to start, so only tests of its end and its signals use one. The
    command gets a thread, since it runs an event loop as the tests do.
    """

    def run(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        codes: list[int] = []

        def run_command() -> None:
            try:
                main(words)
            except SystemExit as ended:
                codes.append(int(ended.code or 0))

        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        thread = threading.Thread(target=run_command, daemon=True)
        # What a command leaves for its child processes ends with it, too.
        with monkeypatch.context() as patch, mock.patch.dict(os.environ):
            patch.chdir(tmp_path)
            for name, value in _ENVIRON.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                thread.start()
                thread.join(timeout_s)
        shown = [stream.buffer.getvalue().decode() for stream in (out, err)]
        assert codes, f"{words} did not end in {timeout_s:g} s: {shown}"
        return subprocess.CompletedProcess(words, codes[0], *shown)

    return run


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """Returns a store of 32 documents in 2 shards; document i has the unit vector i of 32."""
    folder = tmp_path / "store"
    vectors = np.eye(32, dtype=np.float32)
    documents = [
        Item(id=f"d{i:02d}", title=f"title {i}", text=f"text {i}", vector=vectors[i])
        for i in range(32)
    ]
    await build_snapshot(documents, BuildOptions(store=str(folder), shards=2))
    return folder


class Up:
    """A running `nearline up --json`, or another command that says what it does in JSON lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.rows: list[dict[str, object]] = []
        self.address = str(self.until("ready")["address"])
        self.children = psutil.Process(process.pid).children(recursive=True)

    def until(self, event: str, **fields: object) -> dict[str, object]:
        """Reads on to the next line of that event with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            record: dict[str, object] = json.loads(line)
            self.rows.append(record)
            if record.get("event") == event and fields.items() <= record.items():
                return record
        raise AssertionError(f"it ended with {self.process.wait()} before it said {event!r}")

    def named(self, name: str) -> psutil.Process:
        """Returns a process by its name in the table."""
        rows = [row for row in self.rows if row.get("event") == "process" and row["name"] == name]
        return psutil.Process(int(str(rows[-1]["pid"])))


@pytest.fixture
def up(store: Path) -> Iterator[Callable[..., Up]]:
    """Returns a function that starts `nearline up` on free ports, and ends what it started.

    redis: Whether the bundled Redis takes part. http: Whether the gateway does.
    """
    started: list[Up] = []

    def start(*words: str, redis: bool = False, http: bool = False) -> Up:
        none = ("--no-redis",) * (not redis) + ("--no-http",) * (not http)
        line = command("up", "--store", str(store), "--port", "0", "--json", *none, *words)
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(Up(process))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(timeout=20)
        assert one.process.stdout is not None
        one.process.stdout.close()
        for child in one.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(one.children, timeout=20)
