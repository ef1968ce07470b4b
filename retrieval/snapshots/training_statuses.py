"""Shares the status of trainings through Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from nearline.v1 import admin_pb2
from retrieval.redis_client.connection import Redis, translate_redis_errors

_NEEDED_BY = "the status of trainings"
# While one collection is trained, the status of the others is not renewed.
_KEEP_S, _PROGRESS_S = 86_400, 60


class TrainingStatuses:
    """The newest status of the training of each collection.

    Args:
        redis: Redis of the change logs.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, collection: str, status: admin_pb2.TrainingStatus) -> None:
        """Replaces the status of a collection; one with progress is kept for a minute only.

        Raises: NotReady: Redis is unreachable.
        """
        keep_s = _PROGRESS_S if status.progress else _KEEP_S
        async with translate_redis_errors(_NEEDED_BY):
            await self._redis.set(_key(collection), status.SerializeToString(), ex=keep_s)

    async def get(self, collections: Sequence[str]) -> Mapping[str, admin_pb2.TrainingStatus]:
        """Returns the status of those collections that have one.

        Raises: NotReady: Redis is unreachable.
        """
        async with (
            translate_redis_errors(_NEEDED_BY),
            self._redis.pipeline(transaction=False) as pipe,
        ):
            for one in collections:
                pipe.get(_key(one))
            found = await pipe.execute()
        statuses: dict[str, admin_pb2.TrainingStatus] = {}
        for name, data in zip(collections, found, strict=True):
            if isinstance(data, bytes):
                try:
                    statuses[name] = admin_pb2.TrainingStatus.FromString(data)
                except DecodeError:
                    continue  # Of another version, or not ours.
        return statuses


def _key(collection: str) -> str:
    return f"nl:{{{collection}}}:training"
