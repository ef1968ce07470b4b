"""Nothing that was acknowledged is lost, and nothing deleted comes back, whatever fails meanwhile.

HISTORIES=200 python -m pytest tests/live/test_histories.py  runs as many as that; a nightly run has
a new seed each time, and HISTORIES_SEED=N runs those of another run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test

from nearline import contract as c
from tests.live.history import DIM, History
from tests.live.world import World, world
from tests.redis_server import needs_redis
from tests.scale import NIGHTLY, scaled
from tests.small_disk import small_disk

pytestmark = [pytest.mark.service, pytest.mark.long, needs_redis]
HISTORIES = int(os.environ.get("HISTORIES", str(scaled(2, nightly=40))))
STEPS = 14
SEED = int(os.environ.get("HISTORIES_SEED", secrets.randbelow(1 << 31) if NIGHTLY else 20261125))
# Of one seed; the first of them is the shortest there is, and does not count.
_AT_ONCE = 20
_DISK_MIB = 256
# Clocks of the shard servers and the router against that of Redis, in seconds: one row for each
# world, in turn.
_SHIFTS_S = ((0.0,), (600.0,), (-600.0,), (600.0, -600.0, 0.0))


@contextlib.contextmanager
def _running(number: int) -> Iterator[None]:
    """Runs a world of its own for some histories: its processes load all of them at every start."""
    with (
        tempfile.TemporaryDirectory() as folder,
        small_disk(Path(folder), _DISK_MIB) as disk,
        asyncio.Runner() as runner,
    ):
        stack = contextlib.AsyncExitStack()

        async def start() -> World:
            import index_builder.pipeline.builder
            from index_builder.options.build_options import BuildOptions

            # A router wants something to serve.
            options = BuildOptions(store=f"{folder}/store", collection="first", shards=2)
            item = c.Item(id="one", text="one", vector=np.ones(DIM, np.float32))
            await index_builder.pipeline.builder.build_snapshot([item], options)
            shifts_s = _SHIFTS_S[number % len(_SHIFTS_S)]
            running = world(Path(folder), disk=disk, shifts_s=shifts_s)
            return await stack.enter_async_context(running)

        History.runner = runner
        History.running = runner.run(start())
        try:
            yield
        finally:
            runner.run(stack.aclose())


@pytest.mark.timeout(60 + 60 * HISTORIES)
def test_nothing_acknowledged_is_lost_and_nothing_deleted_comes_back() -> None:
    print(f"HISTORIES_SEED={SEED}")
    for number in itertools.count():
        left = HISTORIES - History.done["histories"]
        if left <= 0:
            break
        # When a kill lands decides what is drawn after it, and the engine objects where two of its
        # histories begin alike and go on differently. Each of them was checked to its end.
        with _running(number), contextlib.suppress(FlakyStrategyDefinition):
            run_state_machine_as_test(
                seed(SEED + number)(History),
                settings=settings(
                    max_examples=min(left + 1, _AT_ONCE),
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                ),
            )
    print(f"histories of HISTORIES_SEED={SEED}: {dict(History.done)}")
    assert History.done["writes"] and History.done["checks"]
