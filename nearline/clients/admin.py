"""Async client of the admin service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from nearline import contract as c
from nearline.channel import ServiceChannel
from nearline.clients.arguments import converts_arguments
from nearline.errors import InvalidRequest
from nearline.items.attributes import LIST
from nearline.tls import TlsFiles
from nearline.v1 import admin_pb2, admin_pb2_grpc, release_pb2, snapshot_pb2

# Promotion verifies every file of a snapshot: gigabytes take minutes.
_CHECK_TIMEOUT_S = 1800.0
# A new collection is loaded; a dropped one is removed once every router knows of it.
_LOAD_TIMEOUT_S = 120.0
NO_ATTRIBUTES: Mapping[str, str] = {}
NO_WEIGHTS: Mapping[str, float] = {}
NO_LANGUAGES: Mapping[str, str] = {}


@converts_arguments
class AdminClient(ServiceChannel):
    """Client of the admin service that a router hosts.

    Args:
        address: "host:port" of the router.
        token, tls: See `ServiceChannel`.
    """

    def __init__(
        self, address: str, *, token: str | None = None, tls: TlsFiles | None = None
    ) -> None:
        super().__init__(address, token=token, tls=tls)
        self._stub = admin_pb2_grpc.AdminServiceStub(self.grpc_channel)

    async def serving_status(self) -> admin_pb2.GetServingStatusResponse:
        """Returns the collections and snapshots that the router serves."""
        request = admin_pb2.GetServingStatusRequest()
        return await self.send(self._stub.GetServingStatus, request)

    async def create_collection(
        self,
        collection: str = c.DEFAULT_COLLECTION,
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

            await admin.create_collection("shop", attributes={"price": "double", "brand": "string"})

        Args:
            collection: Name: 1..63 of a-z 0-9 _ -, starting with a letter or digit.
            fingerprint: Of the embedder; empty for the only one that the router knows.
            dim: Numbers in a vector, 1..65,536, if you bring the vectors.
            metric: "cosine" or "inner_product"; empty: cosine.
            shards: 1..64; 0 for one, or as many as there are servers for.
            language: Of the stemmer and the stop words; empty: english; "none" for neither.
            chunk_tokens: Maximum tokens of a chunk; 0 for 240.
            attributes: Attributes that filters can use at once, and the kind of their values:
                string, int, double, bool or time; "string[]" if items have lists of them. At most
                256.
            search_weights: How much a word counts in keyword search, by field: "title", "text", and
                attributes of texts, which are not searched otherwise; for example {"title": 2,
                "genres": 0.5}. 0.001 to 100, at most 32 fields. Title and text count 1 if they
                are missing.
            search_languages: Language of attributes with a search weight whose words are not those
                of `language`; for example {"brand": "none"} for a brand, whose words are searched
                as they are written.
            synonyms: Synonyms of words of queries, as lines of a synonyms file: "tv, television"
                for words that stand for one another, "nyc => new york city" for one way. At most
                10,000 rules of 32 entries.
            who, why: For the record.
        Raises: AlreadyExists: There is one of this name. InvalidRequest: An argument is out of
            range. Conflict: One of this name is being dropped.
        """
        fields = [_attribute(name, kind) for name, kind in attributes.items()]
        request = admin_pb2.CreateCollectionRequest(
            collection=collection,
            fingerprint=fingerprint,
            dim=dim,
            metric=metric,
            shards=shards,
            language=language,
            chunk_tokens=chunk_tokens,
            attributes=fields,
            search_weights=search_weights,
            search_languages=search_languages,
            synonyms=synonyms,
            who=who,
            why=why,
        )
        reply = await self.send(self._stub.CreateCollection, request, _LOAD_TIMEOUT_S)
        return reply.collection

    async def collections(self) -> AsyncGenerator[admin_pb2.Collection, None]:
        """Yields the collections that the caller may read, by name."""
        request = admin_pb2.ListCollectionsRequest()
        while True:
            page = await self.send(self._stub.ListCollections, request)
            for one in page.collections:
                yield one
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def collection(self, collection: str = c.DEFAULT_COLLECTION) -> admin_pb2.Collection:
        """Describes a collection. Raises: NotFound."""
        request = admin_pb2.GetCollectionRequest(collection=collection)
        reply = await self.send(self._stub.GetCollection, request)
        return reply.collection

    async def drop_collection(
        self, collection: str, *, who: str = "", why: str = ""
    ) -> admin_pb2.DropCollectionResponse:
        """Removes a collection for good, with its snapshots, live changes and users.

        Its name is free once this returns. An interrupted call goes on in the router; repeat it to
        wait for the end.

        Raises: NotFound. Conflict: Another router is dropping it.
        """
        request = admin_pb2.DropCollectionRequest(collection=collection, who=who, why=why)
        return await self.send(self._stub.DropCollection, request, _LOAD_TIMEOUT_S)

    async def set_collection_name(
        self, name: str, target: str = "", *, who: str = "", why: str = ""
    ) -> list[str]:
        """Lets a second name point to a collection; requests for the name then go there.

            await admin.set_collection_name("shop", "shop-2026")

        Args:
            name: One that no collection has.
            target: The collection; empty frees the name.
            who, why: For the record.
        Returns: All second names of the target.
        Raises: InvalidRequest: A collection has the name. NotFound: There is no such collection.
        """
        request = admin_pb2.SetCollectionNameRequest(
            collection=name, target=target, who=who, why=why
        )
        return list((await self.send(self._stub.SetCollectionName, request)).names)

    async def policies(self, collection: str = c.DEFAULT_COLLECTION) -> admin_pb2.PolicySet:
        """Returns the policies that were set for a collection; number 0: none ever was."""
        request = admin_pb2.GetPoliciesRequest(collection=collection)
        return (await self.send(self._stub.GetPolicies, request)).policies

    async def set_policies(
        self,
        toml: str,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_number: int = 0,
        who: str = "",
        why: str = "",
    ) -> admin_pb2.PolicySet:
        """Replaces the policies of a collection's surfaces; the next lists follow them.

        Args:
            toml: As in a policy file; empty: the policies of the router.
            collection: Name of the collection.
            expected_number: Required number of the set in force; 0 accepts any.
            who, why: For the record.
        Raises: InvalidRequest: Names the key, the value and what is allowed. Conflict: Another set
            is in force.
        """
        request = admin_pb2.SetPoliciesRequest(
            collection=collection, toml=toml, expected_number=expected_number, who=who, why=why
        )
        return (await self.send(self._stub.SetPolicies, request)).policies

    async def snapshots(
        self, collection: str = c.DEFAULT_COLLECTION
    ) -> AsyncGenerator[snapshot_pb2.Manifest, None]:
        """Yields the manifests of a collection, newest first, without their file lists."""
        request = admin_pb2.ListSnapshotsRequest(collection=collection)
        while True:
            page = await self.send(self._stub.ListSnapshots, request)
            for manifest in page.snapshots:
                yield manifest
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def snapshot(
        self, collection: str = c.DEFAULT_COLLECTION, snapshot_id: str = ""
    ) -> snapshot_pb2.Manifest:
        """Returns one manifest; an empty id selects the current snapshot."""
        request = admin_pb2.GetSnapshotRequest(collection=collection, snapshot_id=snapshot_id)
        reply = await self.send(self._stub.GetSnapshot, request)
        return reply.snapshot

    async def aliases(
        self, collection: str = c.DEFAULT_COLLECTION, history: int = 0
    ) -> admin_pb2.GetAliasesResponse:
        """Returns the current alias record and up to `history` older ones."""
        request = admin_pb2.GetAliasesRequest(collection=collection, history=history)
        return await self.send(self._stub.GetAliases, request)

    async def promote(
        self,
        snapshot_id: str,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
        gate: release_pb2.GateVerdict | None = None,
    ) -> snapshot_pb2.AliasRecord:
        """Makes a snapshot current after verifying its files; returns the new alias record.

        Raises: Conflict: expected_epoch is set, and the current epoch is a different one.
        """
        request = admin_pb2.PromoteSnapshotRequest(
            collection=collection,
            snapshot_id=snapshot_id,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
            gate=gate,
        )
        reply = await self.send(self._stub.PromoteSnapshot, request, _CHECK_TIMEOUT_S)
        return reply.record

    async def split(
        self,
        canary: str,
        share: float = 0.0,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        rollout: release_pb2.Rollout | None = None,
        gate: release_pb2.GateVerdict | None = None,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Starts a canary trial of a snapshot; an empty id ends it, or tries `rollout.policies`.

        Raises: Conflict: see `promote`. NotFound: the snapshot does not exist, or there is no
            trial to end.
        """
        request = admin_pb2.SetTrafficSplitRequest(
            collection=collection,
            canary_snapshot_id=canary,
            canary_share=share,
            rollout=rollout,
            gate=gate,
            expected_epoch=expected_epoch,
            who=who,
            why=why,
        )
        reply = await self.send(self._stub.SetTrafficSplit, request, _CHECK_TIMEOUT_S)
        return reply.record

    async def rollout_status(
        self, collection: str = c.DEFAULT_COLLECTION
    ) -> admin_pb2.GetRolloutStatusResponse:
        """Returns the state of the canary trial on this router."""
        request = admin_pb2.GetRolloutStatusRequest(collection=collection)
        return await self.send(self._stub.GetRolloutStatus, request)

    async def roll_back(
        self,
        collection: str = c.DEFAULT_COLLECTION,
        *,
        expected_epoch: int = 0,
        who: str = "",
        why: str = "",
    ) -> snapshot_pb2.AliasRecord:
        """Makes the previous snapshot current again; see `promote`."""
        request = admin_pb2.RollbackSnapshotRequest(
            collection=collection, expected_epoch=expected_epoch, who=who, why=why
        )
        reply = await self.send(self._stub.RollbackSnapshot, request, _CHECK_TIMEOUT_S)
        return reply.record


def _attribute(name: str, kind: str) -> snapshot_pb2.AttributeField:
    single = kind.removesuffix(LIST)
    try:
        number = snapshot_pb2.AttributeField.Kind.Value(f"KIND_{single.upper()}")
    except ValueError as error:
        raise InvalidRequest(
            f"kind of attribute {name!r} is {kind!r}; use string, int, double, bool or time, and "
            '"string[]" for lists',
            field="attributes",
        ) from error
    return snapshot_pb2.AttributeField(name=name, kind=number, is_list=single != kind)  # type: ignore[arg-type]
