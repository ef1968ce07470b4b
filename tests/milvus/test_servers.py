"""Test servers end with their session."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.milvus.servers import ROOT

pytest.importorskip("pymilvus", reason="no client of Milvus: make test-milvus")
pytestmark = [pytest.mark.milvus, pytest.mark.service]
START = """
import pathlib, sys
from tests.milvus.servers import lite

server = lite(pathlib.Path(sys.argv[1]))
server.start()
print(server._process.pid, flush=True)
sys.stdin.read()
"""


def test_a_server_ends_with_a_session_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdout is not None
        server = psutil.Process(int(session.stdout.readline()))
        assert server.is_running()
        session.send_signal(signal.SIGKILL)
    server.wait(timeout=20)
