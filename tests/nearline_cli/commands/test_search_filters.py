"""Tests of `search --filter` and `count` against a real service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline import Item
from nearline_cli.local.processes import retrieval_process
from tests.nearline_cli.conftest import Run


@pytest.mark.service
async def test_filters_and_counts_from_the_command_line(tmp_path: Path, nearline: Run) -> None:
    store = tmp_path / "filtered"
    documents = [
        Item(id=f"d{n}", attributes={"kind": "ab"[n % 2], "year": 2000 + n}, vector=row)
        for n, row in enumerate(np.eye(8, dtype=np.float32) + 0.1)
    ]
    await build_snapshot(documents, BuildOptions(store=str(store), shards=2))
    async with retrieval_process(store) as service:

        async def run(*words: str) -> tuple[int, str, str]:
            done = await asyncio.to_thread(nearline, *words, "--address", service.address)
            return done.returncode, done.stdout, done.stderr

        vector = json.dumps([1.0] + [0.0] * 7)
        asked = ("search", "--vector", vector, "--filter")
        code, out, _ = await run(*asked, "kind = b AND year < 2004", "--explain", "--json")
        record = json.loads(out)
        assert code == 0 and {hit["id"] for hit in record["hits"]} == {"d1", "d3"}
        assert sum(plan["matches"] for plan in record["plans"]) == 2
        code, out, _ = await run("count", "--facet", "kind", "--filter", "year >= 2003", "--json")
        counted = json.loads(out)
        assert code == 0 and counted["count"] == 5
        assert counted["facets"][0]["counts"] == [
            {"value": "b", "count": 3},
            {"value": "a", "count": 2},
        ]
        code, _, error = await run(*asked, "kin = b")
        assert code == 2 and "did you mean 'kind'" in error
        code, _, error = await run(*asked, "kind = ")
        assert code == 2 and "at column 7: a value is expected" in error
