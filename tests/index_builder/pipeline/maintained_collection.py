"""A collection that upkeep maintains, with users who are made up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from index_builder.maintenance import Maintenance
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from nearline.v1 import admin_pb2
from retrieval.embedders.endpoints import Embedders
from retrieval.snapshots.proposals import Proposal, read_proposals
from retrieval.users.records import LoggedInteraction
from tests.index_builder.behaviour.circular_walks import ITEMS, walks
from tests.index_builder.live_collection import Living
from tests.retrieval.changelog.memory_log import MemoryLog, NoUsers

TEXTS = {f"i{number:02d}": f"Item {number} of them." for number in range(ITEMS)}


class Users(NoUsers):
    """One user with one item."""

    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        yield LoggedInteraction("new", "", "i01", "view", 2_000_000_000_000_000, None)


class Walkers(NoUsers):
    """Users with the interactions of `walks`, and a session without a user."""

    steps = 9

    async def count_logged(self, collection: str) -> int:
        return len(walks(steps=self.steps).user) + 1

    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        rows = walks(steps=self.steps)
        for user, item, time_us in zip(rows.user, rows.item, rows.time_us, strict=True):
            of_user = (rows.users[user], "", rows.items[item])
            yield LoggedInteraction(*of_user, "view", int(time_us), None)
        yield LoggedInteraction("", "session", "i01", "view", 2_000_000_000_000_000, None)


class Walking(Walkers):
    """The same users, later."""

    steps = 18


class NoInteractions(NoUsers):
    async def logged(self, collection: str) -> AsyncIterator[LoggedInteraction]:
        return
        yield


class Logs:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def log(self, collection: str) -> MemoryLog:
        return self._log


class Statuses:
    """Keeps the statuses of trainings."""

    def __init__(self) -> None:
        self.told: list[admin_pb2.TrainingStatus] = []

    async def put(self, collection: str, status: admin_pb2.TrainingStatus) -> None:
        self.told.append(admin_pb2.TrainingStatus.FromString(status.SerializeToString()))


def maintenance_of(
    living: Living, *, statuses: Statuses | None = None, **options: object
) -> Maintenance:
    chosen = UpkeepSettings.load(
        {
            "store": living.options.store,
            "golden_queries": 0,
            "age": "100000d",
            "releases": "propose",
            **options,
        }
    )
    return Maintenance(
        chosen,
        living.store,
        Logs(living.log),  # type: ignore[arg-type]
        Embedders({"it": living.embedder}),
        statuses=statuses,  # type: ignore[arg-type]
    )


async def train_first(maintenance: Maintenance) -> bool:
    """Runs two rounds: in the first, the log may still be being filled."""
    assert not await maintenance.run_once("default")
    return await maintenance.run_once("default")


@pytest.fixture(name="living")
def give_living(tmp_path: Path) -> Living:
    living = Living(tmp_path)
    living.make_log()
    return living


def proposal_of(living: Living) -> Proposal:
    (proposal,) = read_proposals(living.store, "default")
    return proposal
