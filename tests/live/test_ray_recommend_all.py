"""Lists for every user by workers of a Ray cluster, which go on with what one process left."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nearline import contract as c
from tests.live.test_recommend_all import command
from tests.live.test_recommending import served
from tests.optional_packages import needs
from tests.redis_server import needs_redis
from tests.scale import nightly

pytestmark = [pytest.mark.service, needs_redis, needs("ray", "ray")]


@nightly
async def test_workers_make_the_lists_that_are_left(tmp_path: Path) -> None:
    async with served(tmp_path) as running:
        out = tmp_path / "recs.parquet"
        words = ("--out", str(out), "-n", "3", "--part", "2")
        first = tmp_path / "recs.parquet.parts" / "00000000.parquet"
        code, _ = await command(running, *words, kill_at=first)
        assert code == -signal.SIGKILL and not out.exists()
        code, said = await command(running, *words, "--executor", "ray")
        assert code == 0, said
        assert json.loads(said.splitlines()[-1])["users"] == 40
        rows = pq.read_table(out).to_pylist()
        assert len(rows) == 40 * 3 and not first.parent.exists()
        for user in ("u000", "u017", "u039"):
            reply = await running.client.recommend(
                c.Audience(user_id=user), c.RecommendOptions(n=3)
            )
            mine = [row for row in rows if row["user_id"] == user]
            assert [row["item_id"] for row in mine] == [one.hit.id for one in reply.recommendations]
            assert [row["rank"] for row in mine] == [1, 2, 3]
