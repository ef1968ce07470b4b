"""The entry point of the `nearline` command."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import os
import sys
from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with its exit code."""
    # Of a failed TLS handshake, gRPC writes a line of its own before our error.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Closed by the caller.
    if sys.stdin is None:
        sys.stdin = open(os.devnull)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    try:
        # Imported here: this takes most of the time of a short command, and Ctrl-C during it ends
        # the command as it does later, without a traceback.
        from nearline_cli.app import run

        run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
