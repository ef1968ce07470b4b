"""Tests of `nearline ask --folder`: from files to a cited answer, with nothing running."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import platformdirs
import psutil
import pytest

from tests.nearline_cli.conftest import ROOT, command

pytestmark = [pytest.mark.service, pytest.mark.long]

QUESTION = "how long is a gift card valid"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder of documents; its index is in a cache of this test."""
    monkeypatch.setenv("NEARLINE_CACHE_DIR", str(tmp_path / "cache"))
    # The converted model is taken from where other tests have it.
    monkeypatch.setenv("NEARLINE_EMBEDDING_CACHE_DIR", platformdirs.user_cache_dir("nearline"))
    path = tmp_path / "documents"
    path.mkdir()
    (path / "gift-cards.md").write_text(
        "# Gift cards\n\nA gift card is valid for three years from the day it was bought. It "
        "cannot be exchanged for money.\n"
    )
    (path / "returns.txt").write_text("Shoes may be sent back within thirty days, unworn.\n")
    return path


def test_a_question_is_answered_from_a_folder_and_the_next_one_reuses_its_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a deployment elsewhere: nothing of it concerns services of this machine alone.
    monkeypatch.setenv("NEARLINE_TLS_CA", "/nowhere/ca.pem")
    monkeypatch.setenv("NEARLINE_TOKEN", "nl_elsewhere")
    line = command("ask", QUESTION, "--folder", str(folder))
    first = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert first.returncode == 0, first.stderr
    assert "valid for three years" in first.stdout and "[1] gift-cards.md " in first.stdout
    assert "2 documents of 2 files" in first.stderr

    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        said = [next(lines)]
        while "retrieval is starting" not in said[-1]:
            said.append(next(lines))
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        rest = "".join(lines)
        assert process.wait(timeout=30) == 130
    assert any("reusing snapshot" in one for one in said)
    assert "interrupted" in rest and "Traceback" not in rest
    assert children and psutil.wait_procs(children, timeout=30)[1] == []
