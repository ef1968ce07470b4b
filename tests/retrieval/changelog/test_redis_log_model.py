"""Any sequence of requests has the same effect on the log in Redis and on the one in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from nearline.errors import InvalidRequest, SnapshotMismatch
from nearline.store.snapshot import Store, partition_of
from retrieval.changelog.change_log import ChangeLog
from retrieval.changelog.codec import encode_change
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.changelog.registry import ChangeLogs
from retrieval.protocols.watermark import Watermark
from tests.redis_server import needs_redis, valkey
from tests.retrieval.changelog.memory_log import MemoryLog
from tests.scale import scaled

pytestmark = [pytest.mark.service, needs_redis]
# Three ids of one partition, two of others.
PARTITION = partition_of("a")
IDS = ["a", *[str(n) for n in range(1_000) if partition_of(str(n)) == PARTITION][:2], "b", "é\0"]


class Request(NamedTuple):
    writes: Sequence[ChangeWrite]
    key: str


class Trim(NamedTuple):
    upto: int


VERSIONS = st.none() | st.integers(0, 6)
CHANGES = st.builds(
    Change,
    document_id=st.sampled_from(IDS),
    kind=st.sampled_from(ChangeKind),
    text=st.sampled_from(["", "\0 \r\n", "text"]),
)
# Before all that the clock of either log says, and after it.
PLACES = st.none() | st.none() | st.integers(1, 4) | st.integers(4 * 10**15, 4 * 10**15 + 3)
WRITES = st.builds(
    ChangeWrite,
    CHANGES,
    VERSIONS,
    base_version=VERSIONS,
    base_position=st.integers(0, 6),
    as_of_us=PLACES,
)
STEPS = st.one_of(
    st.builds(
        Request,
        st.lists(WRITES, min_size=1, max_size=4, unique_by=lambda one: one.change.document_id),
        st.sampled_from(["", "", "k1", "k 2\r\n"]),
    ),
    st.builds(Trim, st.integers(0, 8)),
)


async def outcome(log: ChangeLog, step: Request | Trim) -> object:
    """Returns all observable results of a step, and of the log after it."""
    seen: list[object] = []
    head, trimmed, _ = await log.state()
    if isinstance(step, Trim):
        seen.append(await log.trim(Watermark(head.log_id, (step.upto,) * 64)))
    else:
        try:
            results, watermark = await log.append(step.writes, step.key)
            seen += [[one[:3] for one in results], watermark.positions]
        except InvalidRequest as error:
            seen.append(error.field)
    head, trimmed, _ = await log.state()
    seen += [head.positions, trimmed.positions]
    for after in (trimmed, head):
        entries = await log.read(dict(enumerate(after.positions)))
        seen += [
            (entry.partition, entry.position, encode_change(entry.change))
            for entry in sorted(entries, key=lambda one: one[:2])
        ]
    with contextlib.suppress(SnapshotMismatch):
        entries = await log.read({PARTITION: 0}, limit=2)
        seen.append([entry.position for entry in entries])
    return seen


def test_redis_agrees_with_the_model(tmp_path: Path) -> None:
    examples = 0

    with asyncio.Runner() as runner:

        async def compare(url: str, steps: Sequence[Request | Trim]) -> None:
            nonlocal examples
            examples += 1
            logs = ChangeLogs(Store(tmp_path), url, who="a test")
            log, model = logs.log(f"c{examples}"), MemoryLog(f"c{examples}")
            for step in steps:
                assert await outcome(log, step) == await outcome(model, step)
            await logs.close()

        @settings(
            max_examples=scaled(30, nightly=300),
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            derandomize=False,
        )
        @given(steps=st.lists(STEPS, min_size=1, max_size=8))
        def check(steps: Sequence[Request | Trim]) -> None:
            runner.run(compare(url, steps))

        redis = valkey()
        url = runner.run(redis.__aenter__())
        try:
            check()
        finally:
            runner.run(redis.__aexit__(None, None, None))
