"""Collections of the client for all services: made, listed, described and dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearline.clients.admin import NO_ATTRIBUTES, NO_LANGUAGES, NO_WEIGHTS, AdminClient
from nearline.clients.own_writes import OwnWrites
from nearline.v1 import admin_pb2


class AsyncCollections:
    """The collections that a service has; `AsyncClient.collections`.

    Args:
        admin: Client of the admin service.
        writes: Writes of the client; those to a dropped collection are forgotten.
    """

    def __init__(self, admin: AdminClient, writes: OwnWrites) -> None:
        self._admin = admin
        self._writes = writes

    async def create(
        self,
        collection: str,
        *,
        fingerprint: str = "",
        dim: int = 0,
        metric: str = "",
        shards: int = 0,
        language: str = "",
        chunk_tokens: int = 0,
        attributes: Mapping[str, str] = NO_ATTRIBUTES,
        search_weights: Mapping[str, float] = NO_WEIGHTS,
        search_languages: Mapping[str, str] = NO_LANGUAGES,
        synonyms: Sequence[str] = (),
        who: str = "",
        why: str = "",
    ) -> admin_pb2.Collection:
        """Creates an empty collection, which can be written and searched at once.

        See `AdminClient.create_collection`.
        """
        return await self._admin.create_collection(
            collection,
            fingerprint=fingerprint,
            dim=dim,
            metric=metric,
            shards=shards,
            language=language,
            chunk_tokens=chunk_tokens,
            attributes=attributes,
            search_weights=search_weights,
            search_languages=search_languages,
            synonyms=synonyms,
            who=who,
            why=why,
        )

    async def list(self) -> Sequence[admin_pb2.Collection]:
        """Returns the collections that the caller may read, by name."""
        return [one async for one in self._admin.collections()]

    async def get(self, collection: str) -> admin_pb2.Collection:
        """Describes a collection. Raises: NotFound."""
        return await self._admin.collection(collection)

    async def set_name(
        self, name: str, target: str = "", *, who: str = "", why: str = ""
    ) -> Sequence[str]:
        """Lets a second name point to a collection, or frees it.

        See `AdminClient.set_collection_name`.
        """
        names = await self._admin.set_collection_name(name, target, who=who, why=why)
        self._writes.forget(name)
        return names

    async def drop(
        self, collection: str, *, who: str = "", why: str = ""
    ) -> admin_pb2.DropCollectionResponse:
        """Removes a collection for good; see `AdminClient.drop_collection`."""
        reply = await self._admin.drop_collection(collection, who=who, why=why)
        self._writes.forget(collection)
        return reply
