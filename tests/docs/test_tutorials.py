"""The tutorials, followed as a reader would: every file is saved, every command is run in order."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.nearline_cli.conftest import ROOT, Up, command

pytestmark = [pytest.mark.service, pytest.mark.long]

TUTORIALS = ROOT / "docs" / "tutorials"
# ```language file: the block is that file. ```sh: its lines are commands. ```: what those before it
# print, but for spaces and what "…" stands for; figures are right to two digits. ```text: neither.
BLOCK = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
PART = r"(\d+\.\d+)|(…)|(─+)|(\s+)"
# The service that a command asks; every other command asks the router, or none of them.
SERVICES = {"ask": "generation", "sessions": "generation"}
LOCAL = {"build", "snapshots"}
PORTS = {7700: "retrieval", 7703: "generation", 7706: "gateway"}
SEARCH = "curl -s 127.0.0.1:7706/v1/collections/default/search --json"
# What a tutorial says to appear within a minute.
SOON, SOON_S = {"nearline status"}, 60
# What a reader should see, by tutorial and command.
SHOWN = {
    "search-your-documents": {
        "nearline build": "served as   default, epoch 1",
        'nearline search "can I send something back" -n 2': "1       1   returns.md",
        'nearline search "how long is a gift card valid" -n 1': "gift-cards",
        "nearline items upsert": "1 applied",
        "python search.py": "Delivery",
    },
    "recommendations-for-a-shop": {
        "nearline build": "3,359 interactions of 300 users with 48 items",
        "nearline recommend --user user-0 -n 4": "tea-strainer",
        "nearline users record": "recorded 1",
        "nearline recommend --user user-0 -n 4 --explain": "light-tent: seen",
    },
    "answers-with-citations": {
        'nearline ask "how long': "[1] returns.md 0-51  Returns",
        'nearline ask "who wrote Hamlet?"': "No answer (off_topic)",
        'nearline ask "and express delivery?"': "[1] delivery.md",
        "python ask.py": "VALID",
    },
    "from-an-empty-shop": {
        "nearline status": "interactions",
        "python wait.py": "trained on 1200 interactions",
        'curl -s 127.0.0.1:7706/v1/collections/default/recommend --json \'{"user_id": "visitor-0", '
        '"n": 3, "explain"': '"id":"tea-',
    },
    "over-http": {
        f'{SEARCH} \'{{"query": {{"text"': '"returns.md"',
        "curl -s -X PUT": "watermark",
        "curl -s 127.0.0.1:7706/v1/collections/default/items/count": '"count":',
        "curl -sN": "event: citation",
        f'{SEARCH} \'{{"query": {{"txt"': "did you mean text?",
        "python chat.py": "nearline:returns.md#char=0,51",
    },
}


class Reader:
    """Somebody who follows a tutorial in an empty folder; services listen on free ports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1"}
        # A reader waits for two rounds of upkeep.
        self._environ["NEARLINE_UPKEEP_EVERY_S"] = "2"
        self._up: Up | None = None

    def save(self, name: str, text: str) -> None:
        """Saves a block as a file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def run(self, line: str) -> str:
        """Runs a command line and returns what it printed; `nearline up` keeps running."""
        program, *words = shlex.split(line)
        if program == "pip":
            assert importlib.util.find_spec(words[-1])
            return ""
        if program == "python":
            code = (self._folder / words[0]).read_text("utf-8")
            for port, service in PORTS.items():
                if f"127.0.0.1:{port}" in code:
                    code = code.replace(f"127.0.0.1:{port}", self._address(service))
            return self._output([sys.executable, "-c", code])
        if program == "curl":
            address = self._address("gateway")
            return self._output(
                [word.replace("127.0.0.1:7706", address) for word in (program, *words)]
            )
        assert program == "nearline", f"a reader cannot run {line!r}"
        if words[0] == "up":
            self._up = Up(self._start([*words, "--port", "0", "--json"]))
            return ""
        if words[0] not in LOCAL:
            words += ["--address", self._address(SERVICES.get(words[0], "retrieval"))]
        return self._output(command(*words))

    def repeat(self, line: str, until: str) -> str:
        """Runs a command for up to a minute, until it prints a text; returns what it printed."""
        printed, end_s = "", time.monotonic() + SOON_S
        while until not in printed and time.monotonic() < end_s:
            printed = self.run(line)
        return printed

    def close(self) -> None:
        """Ends what was started, as Ctrl-C does."""
        if self._up is None:
            return
        process = self._up.process
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        process.stdout.close()
        assert psutil.wait_procs(self._up.children, timeout=30)[1] == []

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*words), cwd=self._folder, env=self._environ, stdout=subprocess.PIPE, text=True
        )

    def _output(self, line: list[str]) -> str:
        done = subprocess.run(
            line, cwd=self._folder, env=self._environ, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _address(self, service: str) -> str:
        assert self._up is not None, "the tutorial starts nothing"
        rows = [row for row in self._up.rows if row.get("name") == service and row.get("address")]
        return str(rows[-1]["address"])


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """Yields a reader, and ends what they started."""
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.close()


def is_shown(shown: str, printed: str) -> bool:
    """Returns whether a command printed a block of a tutorial."""
    figures: list[str] = []
    pattern = ""
    for text, figure, _, rule, space in re.findall(rf"(.*?)(?:{PART}|$)", shown.strip(), re.S):
        figures += [figure] if figure else []
        more = r"(\d+\.\d+)" if figure else "─+" if rule else r"\s+" if space else ".*?"
        pattern += re.escape(text) + more
    found = re.search(pattern, printed, re.S)
    # What a model scores that was trained on another processor differs by up to 4 %.
    return found is not None and all(
        float(one) == pytest.approx(float(other), rel=0.05)
        for one, other in zip(figures, found.groups(), strict=True)
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHOWN)
def test_a_tutorial_does_what_it_says(name: str, tmp_path: Path) -> None:
    text = (TUTORIALS / f"{name}.md").read_text("utf-8")
    printed: dict[str, str] = {}
    latest: list[str] = []
    with reading(tmp_path) as reader:
        for language, file, body in BLOCK.findall(text):
            if file:
                reader.save(file, body)
            elif not language:
                out = "".join(printed[line] for line in latest)
                assert is_shown(body, out), f"{latest} printed\n{out}"
            elif language == "sh":
                latest = body.replace("\\\n", "").splitlines()
                for line in latest:
                    printed[line] = reader.run(line)
                    if line in SOON:
                        printed[line] = reader.repeat(line, until=SHOWN[name][line])
    for start, shown in SHOWN[name].items():
        assert any(shown in out for line, out in printed.items() if line.startswith(start)), start


def test_every_tutorial_is_followed() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.md")} == set(SHOWN)


def test_a_block_that_is_not_printed_is_noticed() -> None:
    shown = "#  score  id\n─────\n1  0.253  re…\n2  7\n"
    printed = "# score id \n──\n1 0.2549 returns.md\n2 7 x"
    assert is_shown(shown, printed)
    for other in (printed.replace("0.2549", "0.267"), printed.replace("7", "8"), printed[:-4], ""):
        assert not is_shown(shown, other)
