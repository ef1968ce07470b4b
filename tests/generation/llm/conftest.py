"""Fixtures with a real server of a small model, for `make test-llm`."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

VARIABLE = "NEARLINE_TEST_LLM"
CONTEXT = 2048
_START_S = 100.0


class LlamaServer:
    """A running `python -m llama_cpp.server`.

    Args:
        folder: Virtual environment with the server and the model.
        port: Port to listen on; 0 selects a free one.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [
                *(str(folder / "bin" / "python"), "-m", "llama_cpp.server"),
                *("--model", str(folder / "model.gguf"), "--model_alias", "small"),
                *("--n_ctx", str(CONTEXT), "--interrupt_requests", "false"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._addresses: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = f"{self._addresses.get(timeout=_START_S)}/v1"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        """Kills the server."""
        self.process.kill()
        self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        # Read to the end, because a full pipe would block the server.
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if match := re.search(r"running on (http://\S+:\d+)", line):
                self._addresses.put(match[1])


@pytest.fixture(scope="session")
def llama() -> Iterator[Callable[..., LlamaServer]]:
    """Yields a function that starts servers, which are stopped at the end."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip("needs a real language model and its server: make test-llm")
    started: list[LlamaServer] = []

    def start(port: int = 0) -> LlamaServer:
        started.append(LlamaServer(Path(folder), port))
        return started[-1]

    yield start
    for server in started:
        if server.process.returncode is None:
            server.kill()


@pytest.fixture(scope="session")
def small(llama: Callable[..., LlamaServer]) -> LlamaServer:
    """Returns a server shared by all tests."""
    return llama()
