"""Requests for lists of the made-up catalogue, and what their users did since the training."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.list_catalogue import draw_items, item_id, user_id
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.times import from_us
from nearline.v1 import retrieval_pb2

METHOD = "/nearline.v1.RetrievalService/Recommend"
HOME, ITEM_PAGE = "home", "item_page"
# Requests that are sent repeatedly.
_REQUESTED = 20_000
# Users who request their list again and again.
_BACK_AGAIN = 500
# Interactions that each user of a request had since the training.
_RECENT = 3
# Items of a list.
_N = 20


class ListRequests:
    """The requests of a run.

    users: Numbers of the users that they are for. hot, cold: Encoded requests.
    """

    def __init__(
        self, rng: np.random.Generator, *, items: int, users: int, surface: str, count: int
    ) -> None:
        """Draws the requests.

        Args:
            rng: Source of users and items.
            items: Number of items in the catalogue.
            users: Number of users in it, more than 500.
            surface: HOME or ITEM_PAGE.
            count: Number of cold requests; users repeat if there are fewer.
        """
        payload = [retrieval_pb2.PAYLOAD_FIELD_TITLE]
        most = min(count + _BACK_AGAIN, users)
        self.users = rng.choice(users, most, replace=False)
        # Users whose lists nobody requested before, and users who come back.
        new, back = self.users[:-_BACK_AGAIN], self.users[-_BACK_AGAIN:]
        fresh_users = np.resize(new, count)
        if surface == HOME:
            self.cold = _encoded(fresh_users, None, surface, payload)
            self.hot = _encoded(back, None, surface, payload)
            return
        requested = draw_items(rng, items, _REQUESTED)
        self.hot = _encoded(np.resize(back, _REQUESTED), requested, surface, payload)
        # Requests for different attributes are different lists, which are not cached yet.
        fresh = np.resize(rng.permutation(items), count)
        payload.append(retrieval_pb2.PAYLOAD_FIELD_ATTRIBUTES)
        self.cold = _encoded(fresh_users, fresh, surface, payload)


def _encoded(
    users: NDArray[np.int64],
    items: NDArray[np.int64] | None,
    surface: str,
    payload: Sequence[Any],
) -> list[bytes]:
    return [
        retrieval_pb2.RecommendRequest(
            user_id=user_id(user),
            item_ids=[] if items is None else [item_id(int(items[at]))],
            surface=surface,
            n=_N,
            payload=payload,
        ).SerializeToString()
        for at, user in enumerate(users.tolist())
    ]


async def record_recent(
    address: str, rng: np.random.Generator, users: NDArray[np.int64], items: int, now_s: int
) -> None:
    """Records recent interactions of users, as an application would."""
    had = draw_items(rng, items, len(users) * _RECENT).reshape(len(users), _RECENT)
    step = c.MAX_BATCH // _RECENT
    starts = iter(range(0, len(users), step))
    async with RetrievalClient(address) as client:

        async def write() -> None:
            for start in starts:
                done = [
                    c.Interaction(
                        item_id=item_id(item),
                        user_id=user_id(int(users[row])),
                        time=from_us((now_s - 60 * place) * 1_000_000),
                    )
                    for row in range(start, min(start + step, len(users)))
                    for place, item in enumerate(had[row].tolist())
                ]
                await client.record_interactions(done, timeout_s=60.0)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(write())
