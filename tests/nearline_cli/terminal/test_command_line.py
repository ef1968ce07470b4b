"""Tests of how the command line is read: completion, panels, old names, durations, usage errors."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.main import get_command

from nearline_cli.app import app
from nearline_cli.docs_generator import visible_commands
from nearline_cli.terminal import confirmation, durations
from nearline_cli.terminal.command_line import NearlineCommand
from tests.nearline_cli.conftest import Run

Read = Callable[..., dict[str, Any]]


@pytest.fixture
def complete(nearline: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Returns what bash is offered at the end of a line."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        monkeypatch.setenv("_NEARLINE_COMPLETE", "complete_bash")
        return nearline().stdout.split()

    return ask


def test_commands_options_and_values_are_completed(complete: Callable[[str], list[str]]) -> None:
    assert complete("nearline se") == ["search", "sessions"]
    assert complete("nearline search --min-sc") == ["--min-score"]
    assert complete("nearline search --mode le") == ["lexical"]
    assert complete("nearline build --target-r") == ["--target-recall", "--target-risk"]
    # What is hidden is not offered.
    assert complete("nearline jobs ") == ["list", "show", "results", "wait", "cancel", "queue"]


def test_the_help_has_a_panel_for_each_kind_of_work(nearline: Run) -> None:
    shown = nearline("--help").stdout
    places = [shown.index(f"─ {panel} ─") for panel in ("Options", "Use", "Build", "Run")]
    assert places == sorted(places) and shown.index("─ Measure ─") > places[-1]
    assert "--install-completion" in shown and "--show-completion" in shown


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("serach", "No such command 'serach'. Did you mean 'search'?; see nearline --help"),
        ("up --prot 1", "--port, --separate); see nearline up --help"),
        ("search a -n x", "Invalid value for '--limit' / '-n': "),
        ("jobs wait", "Missing argument 'ID'; see nearline jobs wait --help"),
        ("search a --timeout soon", "'soon' is not a duration; write 500ms, 10s, 15m, 24h or 7d"),
        ("search a --timeout 0s", "'0s' is no time at all"),
        ("jobs wait a --timeout 99999d", "is longer than ten years"),
    ],
)
def test_with_json_a_usage_error_is_an_object(nearline: Run, line: str, text: str) -> None:
    done = nearline(*line.split(), "--json")
    record = json.loads(done.stderr)
    assert (done.returncode, done.stdout, record["error"]) == (2, "", "INVALID_REQUEST")
    assert text in record["message"]


def test_a_group_without_a_command_is_a_usage_error(nearline: Run) -> None:
    # `--json` belongs to the commands of the group.
    assert nearline("snapshots", "--json").returncode == 2
    assert json.loads(nearline("--json").stderr)["error"] == "INVALID_REQUEST"


@pytest.fixture
def read() -> Read:
    """Returns what reads a line, and gives the values that the command is called with."""
    values: dict[str, Any] = {}
    test = typer.Typer()

    def run(
        limit: int = typer.Option(3, "--limit", "-n"),
        address: str = typer.Option("", "--address"),
        wait: float = typer.Option(0.0, "--wait", parser=durations.read_wait),
        file: str = typer.Argument(""),
    ) -> None:
        values.update(limit=limit, address=address, wait=wait, file=file)

    test.command(cls=NearlineCommand)(run)

    def call(*words: str) -> dict[str, Any]:
        get_command(test).main(list(words), standalone_mode=False)
        return values

    return call


def test_old_names_of_options_are_read_and_not_shown(read: Read, nearline: Run) -> None:
    assert read("-k", "7", "--router", "a:1")["limit"] == 7
    assert read("--k", "8")["limit"] == 8
    assert read("--documents=9")["limit"] == 9
    assert read("--router", "a:1")["address"] == "a:1"
    shown = nearline("snapshots", "promote", "--help").stdout + nearline("search", "--help").stdout
    assert "--router" not in shown and "-k" not in shown
    assert "--limit" in shown and "--address" in shown
    # One that another option has now is that option's.
    assert "younger than an hour" in nearline("snapshots", "prune", "--help").stdout


def test_wait_takes_a_duration_or_none(read: Read) -> None:
    assert read("--wait", "500ms", "f")["wait"] == 0.5
    assert read("--wait=2m", "f")["wait"] == 120
    assert read("--wait", "f") == {"limit": 3, "address": "", "wait": math.inf, "file": "f"}
    assert read("f", "--wait")["wait"] == math.inf
    assert read("--", "--wait")["file"] == "--wait"


@pytest.mark.parametrize(
    "line",
    [
        "items delete a",
        "users delete a",
        "sessions delete a",
        "letters delete a",
        "jobs delete a",
        "keys revoke a --file f",
        "changes trim --drop-archived",
    ],
)
def test_what_removes_something_asks_first(nearline: Run, line: str) -> None:
    done = nearline(*line.split())
    assert done.returncode == 2
    assert "there is no terminal to ask on; add --yes to do it" in done.stderr


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_the_answer_on_a_terminal_decides(
    answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    if code:
        with pytest.raises(typer.Exit):
            confirmation.confirm("delete all", yes=False)
    else:
        confirmation.confirm("delete all", yes=False)
    assert capsys.readouterr().err.startswith("Delete all? [y/N] ")


def test_the_same_option_means_the_same_in_every_command() -> None:
    wrong = []
    removing = {"delete", "drop", "revoke", "prune", "reset"}
    for path, command in visible_commands(get_command(app), "nearline"):
        if path.startswith("nearline bench"):
            continue
        shown = [one for one in command.params if not getattr(one, "hidden", False)]
        by_name = {name: one for one in shown for name in one.opts}
        for name, one in by_name.items():
            fits = {
                "--timeout": one.metavar == durations.METAVAR,
                "--wait": one.metavar == durations.METAVAR,
                "--address": one.envvar == "NEARLINE_ADDRESS" or not one.default,
                "--collection": "-c" in one.opts,
                "--limit": "-n" in one.opts,
                "-n": "--limit" in one.opts,
                "--store": one.envvar == "NEARLINE_STORE" or not one.default,
                "--yes": one.opts == ["--yes", "-y"],
                "--force": "--why" in by_name,
            }
            # Names that options had.
            if not fits.get(name, name not in ("-k", "--k", "--router", "--force-promote")):
                wrong.append(f"{path} {name}")
        if path.split()[-1] in removing and "--yes" not in by_name:
            wrong.append(f"{path} lacks --yes")
    assert wrong == []
