"""A worker that tests can break: python -m tests.nearline.workers.worker."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from nearline.workers.process import Message, WorkerCommand, serve_calls

COMMAND = WorkerCommand(
    "tests.nearline.workers.worker",
    channels=2,
    environment={"PYTHONPATH": str(Path(__file__).parents[3])},
)


def _double(call: Message) -> Message:
    return Message({"pid": os.getpid()}, [2 * array for array in call.arrays])


def _fail(call: Message) -> Message:
    raise MemoryError("no room\nsecond line")


def _hang(call: Message) -> Message:
    threading.Event().wait()
    return Message({})


def _abort(call: Message) -> Message:
    os.abort()


if __name__ == "__main__":
    serve_calls({"double": _double, "fail": _fail, "hang": _hang, "abort": _abort})
