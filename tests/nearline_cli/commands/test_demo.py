"""Tests of the demo, and of the program in the README."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from index_builder.documents import python_docs
from tests.live.hostile.pace import in_time
from tests.nearline_cli.conftest import ROOT, Run, Up, command
from tests.scale import NIGHTLY

pytestmark = pytest.mark.service
MODULES = {"collections", "csv", "datetime", "shutil", "subprocess", "tempfile", "time"}
Written = tuple[Path, int]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Returns the corpus of this Python, and its number of entries."""
    path = tmp_path_factory.mktemp("corpus") / "one.jsonl"
    return path, python_docs.write_corpus(path)


@pytest.fixture(scope="module")
def entries(written: Written) -> dict[str, dict[str, object]]:
    rows = map(json.loads, written[0].read_text("utf-8").splitlines())
    return {row["id"]: row for row in rows}


def test_the_corpus_contains_names_from_python_and_c_sources(
    entries: dict[str, dict[str, object]],
) -> None:
    assert len(entries) > 4_000
    assert list(entries) == sorted(entries)
    strptime = entries["datetime.datetime.strptime"]
    assert strptime["title"] == "datetime.datetime.strptime(date_string, format)"
    assert (strptime["module"], strptime["kind"]) == ("datetime", "method")
    for name in (
        *("datetime.date.fromisoformat", "tempfile.TemporaryDirectory", "csv", "os.path.join"),
        *("str.split", "math.sqrt", "os.getcwd", "itertools.chain", "collections.deque.append"),
    ):
        assert entries[name]["text"]


def test_the_corpus_is_the_same_bytes_every_time(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = written
    assert len(path.read_text("utf-8").splitlines()) == count
    # What is in C, and some of the sources: to read them all once more takes long.
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("asyncio", "collections", "json"):
        shutil.copytree(library / name, tmp_path / "library" / name)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "library"))
    names = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    first, second = map(python_docs.write_corpus, names)
    assert 1_000 < first == second < count
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.fixture
def demo(entries: dict[str, dict[str, object]], tmp_path: Path) -> list[str]:
    """Returns the command of the demo: whole in a nightly run, else of a few modules."""
    words = ["demo", "--json", "--port", "0", "--folder", str(tmp_path / "demo")]
    if NIGHTLY:
        return command(*words)
    rows = [row for row in entries.values() if str(row["module"]).split(".")[0] in MODULES]
    corpus = tmp_path / "few.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [sys.executable, "-m", "tests.nearline_cli.small_demo", str(corpus), *words]


@pytest.mark.timeout(400)
def test_the_demo_answers_and_its_second_run_does_not_build(
    demo: list[str], tmp_path: Path, nearline: Run
) -> None:
    subprocess.run([*demo, "--oneshot"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    snapshots = tmp_path / "demo" / "store" / "default" / "snapshots"
    built = list(snapshots.iterdir())
    start = time.monotonic()
    with subprocess.Popen(demo, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        running = Up(process)
        try:
            answers = [json.loads(process.stdout.readline()) for _ in range(5)]  # type: ignore[union-attr]
            recommended = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            ends = [_answer(running)[-1] for _ in range(3)]
            assert in_time(time.monotonic() - start, 40)
            _run_the_program_of_the_readme(running.address)
            _run_the_commands_of_the_readme(running, nearline)
            (row,) = (
                row
                for row in running.rows
                if row.get("event") == "process" and row["name"] == "generation"
            )
            _ask(str(row["address"]), nearline)
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0
    assert psutil.wait_procs(running.children, timeout=30)[1] == []
    assert list(snapshots.iterdir()) == built
    assert recommended["looked_at"] == "subprocess.run"
    assert [one["reasons"] for one in recommended["recommendations"]] == [
        ["because:subprocess.run"]
    ] * 3
    # Answered, maybe not answered, refused; see QUESTIONS.
    assert ends[0]["event"] == "done" and ends[0]["citations"] and not ends[0]["not_sure"]
    assert ends[2]["event"] == "refusal"
    best = {answer["query"]: [hit["id"] for hit in answer["hits"]] for answer in answers}
    assert "datetime.datetime.strptime" in best["how do I parse a date string"]
    temporary = "make a temporary directory that is deleted afterwards"
    # mkdtemp, which leaves the deleting to its caller, scores within 0.01 of it.
    assert "tempfile.TemporaryDirectory" in best[temporary][:2]


def test_a_port_that_is_taken_is_told_with_the_option_that_the_demo_has(demo: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = taken.getsockname()[1]
        for port, said in (
            (second, f"port {second} on 127.0.0.1 is in use by"),
            (second - 1, f"port {second} on 127.0.0.1 is in use by"),
            (65_535, "port 65536 is above 65535; choose a lower one with --port"),
        ):
            done = subprocess.run(
                [*demo, "--oneshot", "--port", str(port)], cwd=ROOT, capture_output=True, text=True
            )
            error = json.loads(done.stderr.splitlines()[-1])["message"]
            assert done.returncode == 2 and said in error
            assert error.endswith("with --port")
    words = ["make", "--no-print-directory", "-n", "-o", ".venv/.stamp-standard", "demo"]
    shown = subprocess.check_output([*words, f"PORT={second}"], cwd=ROOT, text=True)
    assert f"nearline demo --port {second}" in shown


def _answer(running: Up) -> list[dict[str, Any]]:
    """Reads the events of an answer, up to its end."""
    assert running.process.stdout is not None
    events = []
    for line in running.process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] in ("done", "refusal"):
            return events
    raise AssertionError(f"no end after {events}")


def _ask(address: str, nearline: Run) -> None:
    def asked(question: str, *words: str) -> str:
        done = nearline("ask", question, "--address", address, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = asked("how do I run a subprocess with a timeout?")
    assert "timeout" in said
    # Every marker of the answer has its footnote, and the other way round.
    answer, _, notes = said.partition("\n\n")
    assert re.findall(r"\[(\d+)\]", answer) == re.findall(r"^\[(\d+)\] subprocess", notes, re.M)
    events = [json.loads(line) for line in asked("who wrote Hamlet?", "--json").splitlines()]
    assert [event["event"] for event in events] == ["evidence", "usage", "refusal"]
    assert events[-1]["reason"] == "off_topic"
    # A conversation, which the Redis beside it remembers.
    asked("how do I run a subprocess with a timeout?", "--session", "s")
    words = ("--session", "s", "--json")
    events = [json.loads(line) for line in asked("and on Windows?", *words).splitlines()]
    assert events[0]["condensed"] == "how do I run a subprocess with a timeout on Windows?"
    assert events[-1]["session"] == {"id": "s", "version": 2, "saved": True, "reason": ""}


def _run_the_program_of_the_readme(address: str) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    program = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    assert program.count("127.0.0.1:7700") == 1
    done = subprocess.run(
        [sys.executable, "-c", program.replace("127.0.0.1:7700", address)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "datetime.datetime.strptime(date_string, format)" in done.stdout
    assert "epoch 1, snapshot 2" in done.stdout


def _run_the_commands_of_the_readme(running: Up, nearline: Run) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.findall(r"^\.venv/bin/nearline (.+)$", text, re.M)
    # Folders of one's own are asked in test_ask_folder.py.
    lines = [line for line in found if "--folder" not in line]
    assert [line.split()[0] for line in lines] == ["search", "ask", "status"]
    services = {
        str(row["name"]): str(row["address"])
        for row in running.rows
        if "address" in row and "name" in row
    }
    for line in lines:
        words = shlex.split(line)
        address = services["generation" if words[0] == "ask" else "retrieval"]
        if words[0] == "status":
            # The services of this demo are not at the default distance from each other.
            words += ["--embedding", services["embedding"]]
        done = nearline(*words, "--address", address)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        # The demo has no queue.
        assert "ingest" not in done.stdout
