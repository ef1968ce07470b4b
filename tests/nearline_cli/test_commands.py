"""Tests of other commands: output for people and programs, errors, and exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from rich.text import Text
from typer.main import get_command

import nearline as package
from nearline.contract import IgnoredId, IgnoredReason
from nearline_cli.app import app
from nearline_cli.commands.build import PANELS
from nearline_cli.main import main
from nearline_cli.terminal import output
from nearline_cli.terminal.root_group import RootGroup
from nearline_cli.views.hits import print_ignored
from tests.nearline_cli.conftest import ROOT, Run, Up, command
from tests.redis_server import needs_redis

pytestmark = pytest.mark.service

COMMANDS = "demo build up ask search status doctor snapshots eval bench load"


def test_version_is_the_packages(nearline: Run) -> None:
    assert nearline("--version").stdout == f"nearline {package.__version__}\n"


def test_help_lists_every_command(nearline: Run) -> None:
    shown = nearline("--help").stdout
    assert [word for word in COMMANDS.split() if f" {word} " not in shown] == []


def test_help_keeps_brackets() -> None:
    # Help is markup: what stands in brackets and is not escaped is taken for a style.
    texts = list(helps(get_command(app)))
    assert len(texts) > 100
    shown = [Text.from_markup(text).plain for text in texts]
    assert shown == [text.replace("\\[", "[") for text in texts]


def helps(command: Any) -> Iterator[str]:
    """Yields the help of a command, of its options, and of all below it."""
    yield command.help or ""
    yield from (parameter.help or "" for parameter in command.params if hasattr(parameter, "help"))
    for inner in getattr(command, "commands", {}).values():
        yield from helps(inner)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("search",), 2, "give one of TEXT, --vector and --item; found none"),
        (("search", ""), 2, "TEXT is empty"),
        (("search", "a", "-n", "-1"), 2, "1..10000 is allowed"),
        (("search", "a", "--item", "b"), 2, "found TEXT and --item"),
        (("search", "a", "--boost", "[1]"), 2, "it is no object; give a JSON object"),
        (("search", "a", "--boost", "{x"), 2, "--boost '{x' cannot be read"),
        (("search", "a", "--boost", '{"field": "a", "way": 1}'), 2, "the unknown key 'way'"),
        (("search", "a", "--boost", '{"field": "a"}'), 2, "set exactly one"),
        (("search", "--vector", "[1, x]"), 2, "--vector '[1, x]' cannot be read"),
        (("search", "--vector", "no.npy"), 2, "--vector 'no.npy' cannot be read"),
        (("search", "--vector", "[1, null]"), 2, "has a NaN or infinite number"),
        (("search", "--vector", "[[1], [2]]"), 2, "one vector (d,) is needed"),
        (
            ("search", "a", "--address", "127.0.0.1:1"),
            1,
            "nothing listens there: start the services with `nearline up`",
        ),
        (("ask", "a", "--token", "é"), 2, "characters other than printable ASCII"),
        (("ask",), 2, "QUESTION is missing; write one in quotes"),
        (("ask", "a", "--folder", ""), 2, "--folder is empty; name the folder"),
        (("ask", "--watch", "a", "--folder", "."), 2, "need --folder, and no QUESTION; use one"),
        (("ask", "--stop"), 2, "need --folder, and no QUESTION"),
        (("ask", "--watch", "--stop", "--folder", "."), 2, "use one"),
        (("ask", "a\udcff"), 2, "an argument has bytes that are not UTF-8"),
        (("status", "--address", "127.0.0.1:1", "--embedding", ""), 1, "start it: nearline up"),
        (
            ("status", "--address", "127.0.0.1:1"),
            1,
            "retrieval (127.0.0.1:1), embedding (127.0.0.1:2)",
        ),
        (
            ("snapshots", "list"),
            1,
            "has no collection; name another one (--store, NEARLINE_STORE), or",
        ),
        (("snapshots", "show"), 1, "has no published snapshot"),
        (("up", "--store", __file__), 1, "test_commands.py is a file; name the folder"),
        (("up", "--store", "ftp://host/store"), 1, "use a folder, file://, s3://"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    nearline: Run, words: tuple[str, ...], code: int, text: str
) -> None:
    done = nearline(*words)
    assert done.returncode == code
    assert text in done.stderr
    assert done.stderr.startswith("nearline: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("NEARLINE_LIMITS", "/nowhere.toml", "limits in /nowhere.toml cannot be read"),
        ("NEARLINE_READERS_ATTRIBUTE", "of", "readers_attribute is 'of', and without"),
    ],
)
def test_up_checks_the_settings_of_all_services(
    nearline: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    monkeypatch.setenv(variable, value)
    done = nearline("up")
    assert (done.returncode, text in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("serach",),
        ("up", "--prot", "1"),
        ("search", "a", "-k", "x"),
        ("search", "a", "--timeout", "0"),
        # On the wire 0 is "not said"; here somebody said it.
        ("ask", "a", "--documents", "0"),
        ("ask", "a", "--max-tokens", "0"),
    ],
)
def test_an_unknown_word_is_a_usage_error(nearline: Run, words: tuple[str, ...]) -> None:
    done = nearline(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("nearline: ") and done.stderr.count("\n") == 1
    assert re.search(r"; see nearline( \w+)? --help\n$", done.stderr)


def test_a_group_without_a_command_shows_its_help(nearline: Run) -> None:
    done = nearline("users")
    assert (done.returncode, done.stderr) == (2, "") and "Erase everything" in done.stdout


def test_the_help_of_build_lists_six_options_first_and_the_others_by_topic(nearline: Run) -> None:
    panels: dict[str, list[str]] = {}
    for line in nearline("build", "--help").stdout.splitlines():
        if line.startswith("╭─"):
            names = panels.setdefault(line.strip("╭─╮ "), [])
        elif option := re.match(r"│ (--[a-z-]+)", line):
            names.append(option[1])
    first = ["--corpus", "--store", "--collection", "--no-promote", "--interactions", "--json"]
    assert panels.pop("Options") == [*first, "--help"]
    assert set(panels) == set(PANELS) and all(panels.values())
    known = {one.name for one in RootGroup().commands["build"].params}
    assert {name for names in PANELS.values() for name in names.split()} <= known


def test_debug_shows_the_traceback(nearline: Run) -> None:
    done = nearline("snapshots", "show", "--debug")
    assert "Traceback (most recent call last)" in done.stderr
    assert done.returncode == 1


def test_with_json_an_error_is_an_object(nearline: Run) -> None:
    done = nearline("search", "a", "--address", "127.0.0.1:1", "--json")
    assert done.stdout == ""
    assert json.loads(done.stderr)["error"] == "NOT_READY"


def test_snapshots_are_listed_shown_and_verified(nearline: Run, store: Path) -> None:
    words = ("--store", str(store), "--json")
    listed = json.loads(nearline("snapshots", "list", *words).stdout)
    assert (listed["documents"], listed["shards"], listed["alias"]) == (32, 2, "current")
    shown = json.loads(nearline("snapshots", "show", *words).stdout)
    assert shown["snapshot_id"] == listed["snapshot"]
    verified = json.loads(nearline("snapshots", "verify", *words).stdout)
    assert (verified["ok"], verified["bytes"]) == (True, listed["bytes"])
    assert listed["snapshot"] in nearline("snapshots", "list", "--store", str(store)).stdout
    manifest = next((store / "default" / "snapshots").glob("*/manifest.json"))
    whole = manifest.read_text()
    manifest.write_text("{")
    damaged = nearline("snapshots", "list", *words)
    manifest.write_text(whole)
    record = json.loads(damaged.stdout)
    assert (record["snapshot"], record["alias"]) == (listed["snapshot"], "current")
    assert (record["documents"], damaged.returncode) == (None, 0)
    assert "manifest.json cannot be read" in record["problem"]
    unknown = nearline("snapshots", "show", "x", "--store", str(store))
    assert "not a snapshot id; `nearline snapshots list --store" in unknown.stderr


def test_tables_show_control_characters_and_brackets_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.print_table(("id",), [("a\n\x00\x1b[31m[red]:smile:é",)])
    print_ignored([IgnoredId("b\n[red]", IgnoredReason.NOT_FOUND)])
    shown = capsys.readouterr()
    assert "a\\n\\x00\\x1b[31m[red]:smile:é" in shown.out
    assert shown.err == "ignored: b\\n[red] (not_found)\n"


def test_verify_finds_one_flipped_bit(nearline: Run, store: Path) -> None:
    file = next(store.glob("default/snapshots/*/shards/000/items.arrow"))
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    done = nearline("snapshots", "verify", "--store", str(store))
    assert done.returncode == 1
    assert "items.arrow has SHA-256" in done.stderr
    assert "restore the file or rebuild the snapshot" in done.stderr


def test_doctor_fails_if_a_check_fails(nearline: Run, store: Path) -> None:
    done = nearline("doctor", "--store", str(store), "--json")
    checks = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert checks["python"]["verdict"] == "ok"
    assert checks["store"]["verdict"] == "ok"
    assert checks["faiss"]["verdict"] == "ok"
    manifest = next(store.glob("default/snapshots/*/manifest.json"))
    manifest.write_text("not JSON")
    done = nearline("doctor", "--store", str(store))
    assert done.returncode == 1
    assert "manifest.json" in done.stdout and max(map(len, done.stdout.splitlines())) < 140


@needs_redis
def test_doctor_warns_of_a_read_only_store(
    nearline: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(store)))
    done = nearline("doctor", "--store", str(store), "--json")
    checks = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert [checks[name]["verdict"] for name in ("store", "redis", "change log")] == ["warn"] * 3
    assert "nearline up needs --redis URL or --no-redis" in checks["redis"]["found"]


async def test_search_and_status_of_a_running_router(nearline: Run, up: Callable[..., Up]) -> None:
    where = ("--address", up().address)
    found = json.loads(nearline("search", "--item", "d05", "-k", "2", "--json", *where).stdout)
    assert [hit["id"] for hit in found["hits"]] == ["d00", "d01"]
    assert found["coverage"] == {"answered": 2, "total": 2, "missing": []}
    assert (found["epoch"], found["served_by"]["source"]) == (1, "live")
    vector = json.dumps([float(i == 9) for i in range(32)])
    best = json.loads(nearline("search", "--vector", vector, "--json", *where).stdout)["hits"][0]
    assert (best["id"], best["score"], best["title"]) == ("d09", 1.0, "title 9")
    shown = nearline("search", "--item", "d05", "--item", "nobody", *where)
    assert "title 0 — text 0" in shown.stdout
    # A search without words has passages without marked words.
    marked = nearline("search", "--item", "d05", "--highlight", *where)
    assert "title 0 — text 0" in marked.stdout
    best = json.loads(nearline("search", "--item", "d05", "--highlight", "--json", *where).stdout)
    passage = {"start": 0, "end": 6, "text": "text 0", "spans": []}
    assert best["hits"][0]["highlights"] == {"title": [], "passage": passage}
    assert "epoch 1 · snapshot " in shown.stdout
    assert "shards 2/2" in shown.stdout
    assert "ignored: nobody (not_found)" in shown.stderr
    assert nearline("search", "--item", "d05", "-k", "0", *where).returncode == 2
    state = [json.loads(row) for row in nearline("status", "--json", *where).stdout.splitlines()]
    # Without texts and without Redis, nothing else was wanted.
    services = {row["service"]: row["state"] for row in state if "service" in row}
    assert services == {"retrieval": "serving"}
    assert (state[-1]["shards"], state[-1]["replicas"]) == ("2/2", "1 1")
    port = where[1].rpartition(":")[2]
    lines = nearline("doctor", "--port", port, "--json").stdout.splitlines()
    checked = {row["check"]: row for row in map(json.loads, lines)}
    own, service = checked[f"port {port}"], checked["retrieval"]
    assert (own["verdict"], own["found"]) == ("ok", "in use by a running nearline up")
    assert (service["verdict"], service["found"]) == ("ok", f"127.0.0.1:{port}: serving")
    assert checked["ingest"]["found"] == f"127.0.0.1:{int(port) + 5}: not running"
    # Nothing that needs Redis works here, and each error says why.
    for words in ("items delete a --yes", "users show u", "jobs list"):
        at = f"127.0.0.1:{int(port) + 5}" if words.startswith("jobs") else where[1]
        assert "--no-redis" in nearline(*words.split(), "--address", at).stderr


def test_a_closed_pipe_is_no_error(store: Path) -> None:
    words = f"-m nearline_cli.main snapshots list --json --store '{store}'"
    line = f"'{sys.executable}' {words} | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_is_no_error(store: Path) -> None:
    words = f"-m nearline_cli.main snapshots list --json --store '{store}' >&-"
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' {words}"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_command_quietly(up: Callable[..., Up], tmp_path: Path) -> None:
    vectors = tmp_path / "queries.npy"
    np.save(vectors, np.eye(32, dtype=np.float32))
    running = up()
    line = command("load", "--address", running.address, "--vectors", str(vectors))
    line += ["--seconds", "600"]
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Once it is connected to the router it is at work.
        while not any(c.raddr for c in psutil.Process(process.pid).net_connections("tcp")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == ""


def test_ctrl_c_while_the_command_loads_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "nearline_cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "nearline_cli.app")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main(["search", "text"])
    assert ended.value.code == 130


def test_a_wrong_setting_is_found_before_anything_starts(
    nearline: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_RETRIEVAL_THREDS", "2")
    done = nearline("up", "--store", str(store))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "nearline: unknown setting retrieval.threds in environment (NEARLINE_RETRIEVAL_THREDS); "
        "the nearest known one is threads\n"
    )
    checked = nearline("doctor", "--store", str(store), "--json")
    (found,) = (f for f in map(json.loads, checked.stdout.splitlines()) if f["check"] == "settings")
    assert found["verdict"] == "fail" and "THREDS" in found["found"]
