"""Runs the nearest tests on one mutant, in a copy of the checkout."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutation.nearest_tests import NearestTests

# Without the parameters, which may have spaces.
_FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.M)
_NO_TESTS = 5
# In place of a failed test, where the whole process ended.
NAMELESS = "the process"
_USAGE = 4
_NO_CONFTEST = "while loading conftest"
# For fixtures to stop what they started.
_GRACE_S = 10.0


class Outcome(StrEnum):
    """The outcome of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"


@dataclass(frozen=True)
class Limits:
    """How long tests may take, in seconds; 0 for all tests of a kind leaves them out."""

    test_s: float = 20.0
    quick_s: float = 90.0
    service_s: float = 180.0


@dataclass(frozen=True)
class Verdict:
    """The outcome of a mutant.

    Attributes:
        outcome: Killed by a test, by a test's time limit, or by none.
        test: The test that failed, or the empty text.
        seconds: How long it took.
        note: Why no test was asked, or why tests were cut short; usually empty.
    """

    outcome: Outcome
    test: str
    seconds: float
    note: str = ""


class ForkServer:
    """A process that starts pytest without the time that imports take.

    Args:
        folder: Where tests run.
        environment: Variables of the tests.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.is_busy = False

    def start(self, output: str, arguments: Sequence[str]) -> int:
        """Starts pytest, and returns its process id."""
        if self._server.stdin is None:
            raise RuntimeError("the fork server has no input")
        self._server.stdin.write(json.dumps([output, *arguments]).encode() + b"\n")
        self.is_busy = True
        return int(self._line())

    def wait(self, limit_s: float) -> int | None:
        """Returns the exit code; None if pytest runs for longer."""
        if self._server.stdout is None:
            raise RuntimeError("the fork server has no output")
        if not select.select([self._server.stdout], [], [], limit_s)[0]:
            return None
        code = int(self._line())
        self.is_busy = False
        return code

    def _line(self) -> bytes:
        if self._server.stdout is None or not (line := self._server.stdout.readline()):
            raise RuntimeError("the fork server has ended")
        return line


class Checkout:
    """A copy of a checkout, whose modules may be changed.

    Args:
        root: The checkout to copy, tracked files and new ones alike; it is left as it is.
        folder: Where the copy goes; removed if it exists.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder.absolute()
        shutil.rmtree(folder, ignore_errors=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        plugin = folder / "tests" / "mutation" / "unshrunk.py"
        plugin.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(__file__).with_name("unshrunk.py"), plugin)
        data = Path(os.environ.get("NEARLINE_DATA", root.parent / "shared" / "data"))
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            # Without byte code every run would compile every module again.
            "PYTHONDONTWRITEBYTECODE": "",
            "NEARLINE_DATA": str(data.absolute()),
        }
        self._server = ForkServer(folder, environment)
        self._changed_at = int(time.time())

    def judge(self, path: str, code: str, tests: NearestTests, limits: Limits) -> Verdict:
        """Runs quick tests, then those that start services, with a module changed to `code`."""
        start = time.monotonic()
        if not tests.quick:
            return Verdict(Outcome.SURVIVED, "", 0.0, "no tests near it")
        module = self.folder / path
        before, stamps = module.read_bytes(), module.stat()
        notes = []
        verdict = None
        try:
            module.write_text(code, "utf-8")
            # Byte code is valid for one time of change, in seconds, so none may come twice.
            self._changed_at += 1
            os.utime(module, (self._changed_at, self._changed_at))
            tiers = (
                ("not service", tests.quick, limits.quick_s),
                ("service or long", tests.service, limits.service_s),
            )
            for marker, files, limit_s in tiers:
                if not files:
                    continue
                if not limit_s:
                    notes.append(f"{marker}: not run")
                    continue
                outcome, test = self._tier(marker, files, limits.test_s, limit_s)
                if outcome is None:
                    notes.append(f"{marker}: cut short at {limit_s:g} s")
                elif outcome is not Outcome.SURVIVED:
                    verdict = Verdict(outcome, test, time.monotonic() - start)
                    break
        finally:
            module.write_bytes(before)
            os.utime(module, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        if verdict and verdict.test == NAMELESS:
            # Was it the mutant that ended the process, or do these tests never run?
            if self._tier(marker, files, limits.test_s, limit_s)[1] == NAMELESS:
                raise RuntimeError(f"pytest ends without a result: {list(files)}")
        return verdict or Verdict(Outcome.SURVIVED, "", time.monotonic() - start, "; ".join(notes))

    def failing(self, tests: Sequence[str], test_s: float) -> set[str]:
        """Returns those of some tests that fail without any change.

        Args:
            tests: Their names, without parameters.
            test_s: How long each may take when it judges a mutant; here, twice as long.
        """
        if not tests:
            return set()
        options = ["-o", f"timeout={test_s * 2:g}", *tests]
        code, output = self._pytest(options, limit_s=1800.0)
        if code not in (0, 1):
            raise RuntimeError(f"the tests that failed cannot be run again: {output[-2000:]}")
        return set(_FAILED.findall(output))

    def _tier(
        self, marker: str, files: Sequence[str], test_s: float, limit_s: float
    ) -> tuple[Outcome | None, str]:
        """Returns the outcome, and the test that failed; None if time ran out before one did."""
        options = ["-x", "-m", marker, "-o", f"timeout={test_s:g}", *files]
        code, output = self._pytest(options, limit_s)
        failed = _FAILED.findall(output)
        if code is None and not failed:
            return None, ""
        if code in (0, _NO_TESTS):
            return Outcome.SURVIVED, ""
        # A mutant may keep even conftest.py from being imported.
        if code == _USAGE and _NO_CONFTEST not in output:
            raise RuntimeError(f"pytest cannot run {list(files)}: {output[-2000:]}")
        is_timeout = "Failed: Timeout (" in output or "+ Timeout +" in output
        return Outcome.TIMEOUT if is_timeout else Outcome.KILLED, failed[0] if failed else NAMELESS

    def _pytest(self, options: Sequence[str], limit_s: float) -> tuple[int | None, str]:
        output = self.folder.with_suffix(".output")
        output.write_bytes(b"")
        command = ["-q", "-rfE", "--tb=line", "-p", "no:cacheprovider"]
        # The fork server has imported plugins, too.
        command += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        command += ["-p", "tests.mutation.unshrunk", *options]
        process = self._server.start(str(output), command)
        try:
            code = self._server.wait(limit_s)
            if code is None:
                os.kill(process, signal.SIGINT)
                self._server.wait(_GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            if self._server.is_busy:
                self._server.wait(_GRACE_S)
        return code, output.read_text("utf-8", "replace")
