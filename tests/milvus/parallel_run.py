"""Runs the Milvus tests as three processes side by side: one for Lite, two for Milvus 2.3.5.

Most of their time is spent waiting for the servers. Milvus 2.3.5 has a fixed port, so the second
process gets a network of its own; where the system allows none, one process runs both halves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from tests.milvus.network_namespace import NAMED
from tests.network_namespace import is_allowed

STANDALONE = "2.3.5 or standalone"
# About half of the time that the tests of 2.3.5 take.
HALF = (
    "tests/milvus/test_client.py",
    "tests/milvus/test_filters.py",
    "tests/milvus/test_live_changes.py",
    "tests/retrieval",
)
_PYTEST = (sys.executable, "-m", "pytest", "-m", "milvus", "-p", "no:cacheprovider")
_APART = (sys.executable, "-m", "tests.milvus.network_namespace")


def _start(command: Sequence[str], out: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def main() -> int:
    """Returns the exit code: 0 if all processes succeeded."""
    lite = [*_PYTEST, "-k", f"not ({STANDALONE})"]
    standalone = [[*_PYTEST, "-k", STANDALONE]]
    if not os.environ.get(NAMED) and is_allowed():
        rest = [f"--ignore={path}" for path in HALF]
        standalone = [
            [*_APART, *_PYTEST, "-k", STANDALONE, *HALF],
            [*_APART, *_PYTEST, "-k", STANDALONE, *rest],
        ]
    with tempfile.TemporaryFile("w+") as first, tempfile.TemporaryFile("w+") as second:
        outputs = (first, second)
        started = [_start(command, out) for command, out in zip(standalone, outputs, strict=False)]
        try:
            codes = [subprocess.run(lite, check=False).returncode]
            codes += [process.wait() for process in started]
        finally:
            for process in started:
                process.kill()
        # Their output follows that of the tests of Lite.
        for out in outputs:
            out.seek(0)
            sys.stdout.write(out.read())
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
