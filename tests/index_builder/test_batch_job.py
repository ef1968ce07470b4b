"""`python -m index_builder` trains on what a Redis has recorded, with and without a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from index_builder.__main__ import main
from nearline.contract import Interaction
from nearline.store.snapshot import Store
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.changelog.registry import ChangeLogs
from tests.index_builder.behaviour.circular_walks import documents, walks
from tests.redis_server import give_shared_redis, needs_redis

__all__ = ["give_shared_redis"]  # A fixture.
pytestmark = [pytest.mark.service, needs_redis]


@pytest.fixture(name="words")
def give_words(tmp_path: Path, shared_redis: str) -> list[str]:
    """Returns options of a build of documents with vectors."""
    rows = [
        {"id": one, "text": f"Item {one}.", "vector": [1.0, number]}
        for number, one in enumerate(documents())
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, rows)))
    store = ("--store", str(tmp_path / "store"), "--redis", shared_redis)
    corpora = ("--corpus", str(corpus), "--vector-column", "vector")
    return [*store, "--golden-queries", "0", *corpora]


async def _record(url: str, store: Store) -> int:
    """Records the walks of users, and an interaction of a session; returns the number of walks."""
    rows = walks()
    found = [
        Interaction(
            item_id=rows.items[item], user_id=rows.users[user], time=from_us(int(time_us) + 10**15)
        )
        for user, item, time_us in zip(rows.user, rows.item, rows.time_us, strict=True)
    ]
    logs = ChangeLogs(store, url, who="test")
    states = logs.log("default").user_states()
    for start in range(0, len(found), 100):
        await states.record("default", found[start : start + 100], "")
    await states.record("default", [Interaction(item_id="i01", session_id="s")], "")
    await logs.close()
    return len(found)


def _behaviour(store: Store) -> snapshot_pb2.BehaviourCard:
    return store.manifest("default", store.alias_in_force("default").current).behaviour


async def test_a_batch_job_learns_what_was_recorded_before_any_item_was_changed(
    words: list[str], shared_redis: str
) -> None:
    # Nobody has come yet, which is no error of a nightly job.
    await main([*words, "--learn", "true"])
    store = Store.open(words[1])
    assert not _behaviour(store).interactions
    recorded = await _record(shared_redis, store)
    await main([*words, "--learn", "true"])
    assert (_behaviour(store).interactions, _behaviour(store).recorded) == (recorded, recorded)
    # Without a corpus, the served documents are trained on again.
    without = words[: words.index("--corpus")]
    before = store.alias_in_force("default").current
    await main([*without, "--learn", "true"])
    assert store.alias_in_force("default").current != before
    assert _behaviour(store).interactions == recorded
    assert _behaviour(store).users == 40
