"""The collection that tests of compaction and pruning change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.index_builder.live_collection import Living

TEXTS = {f"d{n}": f"Text {n}." for n in range(20)}


@pytest.fixture
async def living(tmp_path: Path) -> Living:
    """Twenty documents in two shards, as of second 10; changes come from second 20 on."""
    found = Living(tmp_path, shards=2)
    await found.build(found.corpus(TEXTS, 10))
    found.make_log()
    found.clock.now = 20
    return found
