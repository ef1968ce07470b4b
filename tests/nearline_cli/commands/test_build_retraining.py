"""Tests of `nearline build` that learns again; some with a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from index_builder.releases.offline_eval import TrainedSnapshot
from nearline.contract.recommendations import Interaction
from nearline.store.snapshot import PARTITIONS, Store
from nearline_cli.main import main
from retrieval.changelog.registry import ChangeLogs
from retrieval.redis_client.connection import connect
from retrieval.users.keys import log_key
from retrieval.users.states import UserStates
from tests.index_builder.behaviour.trained_snapshots import history_ids, read_trained
from tests.redis_server import give_redis_url, needs_redis

ITEMS = 6
START = datetime.now(UTC).replace(microsecond=0) - timedelta(days=50)
Row = tuple[str, str, int]

__all__ = ["give_redis_url"]


class Shop:
    """A collection of vectors in a store, and its files."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys
        self.store = folder / "store"
        self.redis = ""

    def corpus(self, first: int = 0, last: int = ITEMS) -> tuple[str, ...]:
        """Writes items as vectors; gives the words that name them."""
        path = self._folder / "items.jsonl"
        rows = [{"id": f"i{n}", "text": f"i{n}", "v": [1, n]} for n in range(first, last)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return "--corpus", str(path), "--vector-column", "v"

    def events(self, *rows: Row, kind: str = "") -> tuple[str, ...]:
        """Writes (user, item, second) as interactions; gives the words that name them."""
        path = self._folder / "events.csv"
        lines = [f"{u},{i},{(START + timedelta(seconds=s)).isoformat()},{kind}" for u, i, s in rows]
        path.write_text("\n".join(["user,item,time,kind", *lines]), "utf-8")
        return "--interactions", str(path)

    async def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Runs a command with --json; gives what it printed."""
        where = ("--store", str(self.store), "--redis", self.redis, "--json")
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, [*words, *where])
        shown = self._capsys.readouterr()
        assert ended.value.code == code, shown.err
        found: dict[str, Any] = json.loads(shown.err if code else shown.out)
        return found

    async def learned(self, *words: str) -> tuple[int, int, int]:
        """Builds; gives how many interactions were taken from where."""
        told = (await self.run("build", *words))["behaviour"]
        return told["file"], told["recorded"], told["kept"]

    def now(self) -> TrainedSnapshot:
        """Returns what is served now."""
        return read_trained(Store.open(str(self.store)))

    def history(self, user: str) -> list[str]:
        """Returns what is served of a user, newest first."""
        return history_ids(self.now(), user)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shop:
    return Shop(tmp_path, capsys)


# What learns from less, or leaves documents out, is refused by the release gate.
FORCED = ("--force-promote", "the test wants it")
EARLY: Sequence[Row] = [("ann", "i0", 1), ("ann", "i1", 2), ("bob", "i0", 3)]


async def test_a_merge_adds_to_the_training_data_and_a_replacement_replaces_it(
    shop: Shop,
) -> None:
    assert await shop.learned(*shop.corpus(), *shop.events(*EARLY)) == (3, 0, 0)
    late: Sequence[Row] = [("ann", "i0", 1), ("eve", "i2", 9)]
    # The row that both have counts once.
    merge = ("--mode", "merge")
    taken = await shop.learned(*shop.corpus(5, 8), *merge, *shop.events(*late))
    assert taken == (2, 0, 2)
    assert shop.history("ann") == ["i1", "i0"] and shop.history("eve") == ["i2"]
    assert len(shop.now().tables.ids) == 8
    # Either may be said otherwise; of documents, what replaces keeps none.
    taken = await shop.learned(*shop.corpus(), "--learn", *shop.events(("dan", "i3", 4)), *FORCED)
    assert taken == (1, 0, 4) and len(shop.now().tables.ids) == ITEMS
    taken = await shop.learned(
        *shop.corpus(), *merge, "--learn-afresh", *shop.events(*late), *FORCED
    )
    assert taken == (2, 0, 0)
    assert await shop.learned(*shop.corpus(), *shop.events(("dan", "i3", 4)), *FORCED) == (1, 0, 0)
    assert shop.history("ann") == []


async def test_without_a_corpus_documents_stay_and_options_about_interactions_apply(
    shop: Shop,
) -> None:
    weights = ("--kind-column", "kind", "--kind", "view=0.5", "--kind", "buy=3")
    first = await shop.run(
        *("build", *shop.corpus(), "--shards", "2", "--validate-on", "time:0.6"),
        *(*weights, *shop.events(*EARLY, kind="view")),
    )
    assert await shop.learned("--learn") == (0, 0, 3)
    bought = shop.events(("bob", "i5", 40 * 86_400), kind="buy")
    again = await shop.run("build", *bought, "--kind-column", "kind")
    for name in ("documents", "chunks", "index_factory", "dim", "words"):
        assert again[name] == first[name]
    assert again["merged"]["reused"] == 0 and again["embedded"] == 0
    store = Store.open(str(shop.store))
    manifest = store.manifest("default", store.alias_in_force("default").current)
    assert len(manifest.shards) == 2
    # What was not said is as it was: the weights of the kinds, and those of what was kept.
    history = shop.now().tables.histories.of("bob")
    assert history is not None and history.weight.tolist() == [3.0, 0.5]
    assert manifest.behaviour.kind_weights == {"view": 0.5, "buy": 3.0}
    words = ("build", "--learn", "--mode", "merge", "--keep-days", "30", *FORCED)
    told = (await shop.run(*words))["behaviour"]
    assert told["left_out"] == {"interactions more than 30 days older than the newest": 3}
    assert (told["interactions"], told["kept"]) == (1, 4)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ((), "no corpus was named"),
        (("--keep-days", "3"), "no corpus was named"),
        (("--learn", "--mode", "replace"), "would leave no document"),
        (("--learn", "--shards", "2"), "--shards cannot be used without a corpus"),
        (
            ("--learn", "--chunk-tokens", "9", "--as-of", "2020-01-01"),
            "--chunk-tokens, --as-of cannot",
        ),
        (("--learn", "--validate-on", "sometimes"), "there is no split 'sometimes'"),
        (("--learn", "--popularity-debias", "1.5"), "popularity_debias is 1.5; 0..1 is allowed"),
        (("--learn", "--kind", "view=nan"), "'view=nan' does not give a weight"),
        (("--learn",), "nothing to train on: there are no new or recorded interactions"),
        (("--learn-afresh",), "nothing to train on"),
    ],
)
async def test_contradictory_options_are_refused(
    shop: Shop, words: tuple[str, ...], wrong: str
) -> None:
    await shop.run("build", *shop.corpus())
    assert wrong in (await shop.run("build", *words, code=2))["message"]


async def test_keep_days_needs_interactions(shop: Shop) -> None:
    error = await shop.run("build", *shop.corpus(), "--keep-days", "3", code=2)
    assert "--keep-days 3 cannot be used without interactions" in error["message"]
    error = await shop.run("build", *shop.corpus(), "--popularity-debias", "0", code=2)
    assert "--popularity-debias 0.0 cannot be used without interactions" in error["message"]
    assert (await shop.run("build", "--learn", code=1))["error"] == "NOT_FOUND"


async def test_the_summary_names_the_sources_of_interactions(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    await shop.run("build", *shop.corpus(), *shop.events(*EARLY))
    words = ("build", *shop.events(("dan", "i3", 4)), "--store", str(shop.store))
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, words)
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 interactions of 3 users with 3 items 1 from the file, 3 learned before" in shown


@pytest.mark.service
@needs_redis
async def test_recorded_interactions_outlive_the_log(shop: Shop, redis_url: str) -> None:
    await shop.run("build", *shop.corpus())
    shop.redis = redis_url
    client = connect(redis_url, timeout_s=10.0)
    logs = ChangeLogs(Store.open(str(shop.store)), redis_url, who="test")
    try:
        log = logs.log("default")
        await log.state()
        states = log.user_states()
        await record(states, ("ann", "i0", 1), ("ann", "i1", 2), ("bob", "i1", 3), ("eve", "i2", 4))
        # No file, nothing learned before: the log is all there is.
        assert await shop.learned("--learn") == (0, 4, 0)
        assert await shop.learned("--learn") == (0, 4, 0)
        for partition in range(PARTITIONS):
            await client.xtrim(log_key("default", partition), maxlen=0, approximate=False)
        assert await shop.learned("--learn") == (0, 0, 4)
        assert shop.history("ann") == ["i1", "i0"]
        # A row of the file that was recorded, and learned before, counts once.
        await record(states, ("bob", "i3", 5), ("ann", "i4", 6))
        same = shop.events(("bob", "i3", 5), ("ann", "i1", 2))
        assert await shop.learned(*same) == (2, 1, 3)
        assert shop.history("bob") == ["i3", "i1"] and shop.history("ann") == ["i4", "i1", "i0"]
        # Who was deleted is in none of the three.
        await states.delete("default", "ann")
        told = (await shop.run("build", *shop.events(("ann", "i5", 7)), *FORCED))["behaviour"]
        assert told["left_out"] == {"a user who was deleted afterwards": 4}
        assert (told["file"], told["recorded"], told["kept"]) == (1, 1, 5)
        assert list(shop.now().tables.histories.users) == ["bob", "eve"]
        # Who comes back begins again; what was recorded alone may be asked for, too.
        await record(states, ("ann", "i2", 99 * 86_400))
        assert await shop.learned("--learn") == (0, 2, 2)
        assert await shop.learned("--learn-afresh", *FORCED) == (0, 2, 0)
        assert list(shop.now().tables.histories.users) == ["ann", "bob"]
    finally:
        await logs.close()
        await client.aclose()


async def record(states: UserStates, *rows: Row) -> None:
    """Records (user, item, second); what is yet to come is done in a minute from now."""
    now = datetime.now(UTC) + timedelta(minutes=1)
    done = [
        Interaction(item_id=item, user_id=user, time=min(START + timedelta(seconds=second), now))
        for user, item, second in rows
    ]
    assert (await states.record("default", done)).recorded == len(rows)
