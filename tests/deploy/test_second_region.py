"""A second region serves the store of the first, whose change log it does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nearline.clients import RetrievalClient
from nearline.contract import Item, SearchOptions
from nearline.errors import NearlineError
from nearline.internal.v1.change_pb2 import LogRecord
from nearline.store.snapshot import Store
from nearline_cli.local.processes import RETRIEVAL_SERVICES, SHARD_SERVICES, service_process
from tests.retrieval.small_snapshots import documents_of, write_snapshot

_ROWS = np.eye(8, dtype=np.float32)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


@pytest.mark.service
async def test_it_serves_the_snapshot_refuses_writes_and_writes_nothing(tmp_path: Path) -> None:
    store, folder = Store(tmp_path), str(tmp_path)
    first = write_snapshot(tmp_path, documents_of(_ROWS))
    store.create_log_record("default", LogRecord(number=1, log_id="0" * 32))
    store.mark_log_ready("default", 1)
    common = ["--store", folder, "--drain-s", "0"]
    async with (
        service_process("retrieval.shard_server", common, ready_services=SHARD_SERVICES) as shard,
        service_process(
            "retrieval",
            [*common, "--shards", f"0={shard.address}", "--record-share", "0"],
            ready_services=RETRIEVAL_SERVICES,
        ) as router,
        RetrievalClient(router.address) as client,
    ):
        before = _files(tmp_path)
        found = await client.search(_ROWS[3], SearchOptions(k=1))
        assert [hit.id for hit in found.hits] == ["d00003"]
        assert found.info.snapshot_id == first
        with pytest.raises(NearlineError, match="--redis"):
            await client.upsert_items([Item(id="new", vector=_ROWS[0])])
        assert _files(tmp_path) == before
