"""Runs a command in a network of its own, with nothing but a loopback device.

Milvus 2.3.5 listens on all addresses and cannot be told otherwise; in there, nobody else is. Where
the system allows no such network the command runs as it is, and that is said.
"""

from __future__ import annotations

import os
import sys

from tests.network_namespace import go_apart

NAMED = "NEARLINE_TEST_MILVUS"


def main(command: list[str]) -> None:
    """Replaces this process with a command in a network of its own."""
    if not os.environ.get(NAMED):
        try:
            go_apart()
        except OSError as error:
            print(
                f"no network of their own for the tests ({error}): Milvus 2.3.5 listens on all "
                "addresses of this machine while they run",
                file=sys.stderr,
                flush=True,
            )
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
