"""Runs the tests that ask a Milvus: those of each server in a process of their own, at once.

Most of their time is spent waiting for the servers, and each of these is started once. (The groups
of pytest-xdist, which are for this, need names of tests that pytest 9.2 lets nobody change.)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

STANDALONE = "2.3.5 or standalone"


def main() -> int:
    """Returns the exit code: 0 where both ended well."""
    pytest = [sys.executable, "-m", "pytest", "-m", "milvus", "-p", "no:cacheprovider"]
    with tempfile.TemporaryFile("w+") as told:
        # What it says comes after what the other one says.
        standalone = subprocess.Popen(
            [*pytest, "-k", STANDALONE], stdout=told, stderr=subprocess.STDOUT
        )
        try:
            lite = subprocess.run([*pytest, "-k", f"not ({STANDALONE})"], check=False)
            code = standalone.wait()
        finally:
            standalone.kill()
        told.seek(0)
        sys.stdout.write(told.read())
    return lite.returncode or code


if __name__ == "__main__":
    sys.exit(main())
