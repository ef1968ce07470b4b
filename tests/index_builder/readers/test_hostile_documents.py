"""A folder of documents made to hurt: each has its reason, and all others are read."""

from __future__ import annotations

import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from index_builder.documents.bad_rows import BadRow, BadRows
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from index_builder.readers.sandbox import SandboxReader
from tests.index_builder.readers.hostile_documents import HOSTILE_OFFICE, SECRET, Trap
from tests.index_builder.readers.hostile_pages import HOSTILE_PAGES
from tests.index_builder.readers.office_files import TEXT

HOSTILE = HOSTILE_OFFICE | HOSTILE_PAGES
pytestmark = [pytest.mark.service]
# A fraction of what a reader has fills up in a fraction of the time.
MEMORY_BYTES = 2 << 30
TIMEOUT_S = 30.0
ENDLESS_S = 3.0
# A reader waits for the processor beside other tests.
NEIGHBOURS_S = 30.0
GOOD = ["a-good.txt", "m-good.txt", "z-good.txt"]


class Read(NamedTuple):
    """What a build read of the folder.

    calls: Connections to the trap. most_kib: Before, the memory of the largest process that this
    one had started.
    """

    texts: dict[str, str]
    reasons: dict[str, str]
    seconds: dict[str, float]
    calls: list[object]
    left_behind: set[Path]
    most_kib: int


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    root = tmp_path_factory.mktemp("hostile")
    secret = root / "secret.txt"
    secret.write_text(SECRET)
    calls: list[object] = []
    result = Read({}, {}, {}, calls, set(), _most_kib())
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_count, args=(server, calls), daemon=True).start()
        trap = Trap(f"http://127.0.0.1:{server.getsockname()[1]}", str(secret))
        for folder, timeout_s in ((root / "folder", TIMEOUT_S), (root / "endless", ENDLESS_S)):
            folder.mkdir()
            for name, hostile in HOSTILE.items():
                if ("longer than" in hostile.reason) == (folder.name == "endless"):
                    (folder / name).write_bytes(hostile.make(trap))
            for name in GOOD:
                (folder / name.replace("-", f"-{folder.name}-")).write_text(f"Good text of {name}.")
            before = set(root.rglob("*"))
            _read(folder, timeout_s, result)
            result.left_behind.update(set(root.rglob("*")) - before, root.parent.glob("evil*"))
        yield result


def _read(folder: Path, timeout_s: float, result: Read) -> None:
    started = time.monotonic()

    def note(name: str) -> None:
        nonlocal started
        result.seconds[name], started = time.monotonic() - started, time.monotonic()

    def add(row: BadRow) -> None:
        name = Path(row.location.source).name
        result.reasons[name] = row.reason
        note(name)

    with pytest.MonkeyPatch.context() as patch:
        small = partial(SandboxReader, timeout_s, MEMORY_BYTES)
        patch.setattr("index_builder.readers.corpus.SandboxReader", small)
        for row in Corpus([folder], DocumentColumns()).rows(BadRows(1_000, add)):
            result.texts[row.item.id] = row.item.text
            note(row.item.id)


def _count(server: socket.socket, calls: list[object]) -> None:
    while True:
        try:
            calls.append(server.accept())
        except OSError:
            return


def test_there_are_sixty_hostile_documents() -> None:
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_has_its_text_or_a_clear_reason(read: Read, name: str) -> None:
    wanted = HOSTILE[name].reason
    reason = read.reasons.get(name)
    if reason is None:
        assert not wanted or "^$" in wanted
        assert TEXT in read.texts[name]
        assert len(read.texts[name]) < 100 * len(TEXT)
    else:
        assert wanted and re.search(wanted, reason)
        assert re.search(r"[;:] (?:if|\w+) ", reason), "names no remedy"
        assert len(reason) < 400
    assert SECRET not in read.texts.get(name, "") + str(reason)


def test_every_other_file_is_read(read: Read) -> None:
    assert {name: text for name, text in read.texts.items() if name.endswith("-good.txt")} == {
        name.replace("-", f"-{folder}-"): f"Good text of {name}."
        for folder in ("folder", "endless")
        for name in GOOD
    }


def test_nothing_leaves_the_sandbox(read: Read) -> None:
    assert read.calls == []
    assert read.left_behind == set()


def test_no_document_takes_more_than_its_time_and_memory(read: Read) -> None:
    for name, seconds in read.seconds.items():
        endless = name in HOSTILE and "longer than" in HOSTILE[name].reason
        assert seconds < (ENDLESS_S if endless else TIMEOUT_S) + NEIGHBOURS_S, name
    # A reader may not have more address space, whatever it reads. Services of other tests may.
    assert _most_kib() < max(MEMORY_BYTES >> 10, read.most_kib + 1)


def _most_kib() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
