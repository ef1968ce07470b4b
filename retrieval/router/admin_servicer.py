"""The gRPC servicer of administration: snapshots, aliases, status, promotion and rollouts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import nearline
from nearline.access.caller import ANONYMOUS
from nearline.access.limits import page_size
from nearline.access.method_guard import current_caller, current_limits
from nearline.access.rights import Right
from nearline.calls.guard import Context
from nearline.contract import DEFAULT_COLLECTION
from nearline.errors import InvalidRequest, NotReady, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import Store, check_collection
from nearline.store.snapshot_ids import check_snapshot_id
from nearline.v1 import admin_pb2, admin_pb2_grpc, snapshot_pb2, types_pb2
from nearline.wire.limits import LIMITS, check_range
from nearline.wire.values import timestamp
from retrieval.protocols.compute_threads import check_needed, read_store
from retrieval.rollout.canaries import CanaryController
from retrieval.rollout.collections import ServedCollections
from retrieval.rollout.trial import Trial
from retrieval.router.collection_admin import CollectionAdmin
from retrieval.router.live_reports import LiveReport, LiveReporter
from retrieval.search.request_context import Visible
from retrieval.snapshots import aliases
from retrieval.snapshots.desired_state import DesiredState
from retrieval.snapshots.gate_reports import require_gate_pass
from retrieval.snapshots.proposals import ProposalState, newest_proposal
from retrieval.snapshots.training_statuses import TrainingStatuses
from retrieval.writes.feed_block import FeedBlock

# A Redis that hangs must not hide the rest of the status.
_TRAININGS_S = 1.0


class PolicyStore(Protocol):
    """The policies of the surfaces of each collection; see `recommend.stored_policies`."""

    def parse(self, toml: str) -> object: ...

    async def promote(
        self, collection: str, tried: snapshot_pb2.AliasRecord, *, who: str, why: str
    ) -> snapshot_pb2.AliasRecord: ...

    async def read(self, collection: str) -> admin_pb2.PolicySet: ...

    async def write(
        self, collection: str, toml: str, *, expected: int, who: str, why: str
    ) -> admin_pb2.PolicySet: ...


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Administers the store and reports what the router serves.

    Args:
        store: The snapshot store.
        collections: The collections that the router serves.
        desired: By collection, the snapshot that the router should serve.
        live: Reports on live changes.
        canaries: Controls trials of canaries.
        admin: Creates, describes and drops collections.
        policies: The policies of the surfaces of each collection.
        warning: What an operator should know of the router's settings. Optional.
        feed_block: Knows how full the resources are. Optional.
        trainings: Have the status of trainings. Optional.
        visible: Says which items the caller may see. Optional; None shows all.
    """

    def __init__(
        self,
        store: Store,
        collections: ServedCollections,
        desired: Mapping[str, DesiredState],
        live: LiveReporter,
        canaries: CanaryController,
        admin: CollectionAdmin,
        policies: PolicyStore,
        warning: str = "",
        feed_block: FeedBlock | None = None,
        trainings: TrainingStatuses | None = None,
        visible: Visible = lambda: None,
    ) -> None:
        self._visible = visible
        self._trainings = trainings
        self._warning = warning
        self._feed_block = feed_block
        self._store = store
        self._collections = collections
        self._desired = desired
        self._live = live
        self._canaries = canaries
        self._admin = admin
        self._policies = policies

    async def CreateCollection(
        self, request: admin_pb2.CreateCollectionRequest, context: Context
    ) -> admin_pb2.CreateCollectionResponse:
        """Creates an empty collection, which is served when this returns."""
        request.who = _who(request)
        created = await self._admin.create(request)
        return admin_pb2.CreateCollectionResponse(collection=created)

    async def ListCollections(
        self, request: admin_pb2.ListCollectionsRequest, context: Context
    ) -> admin_pb2.ListCollectionsResponse:
        """Lists collections by name; a page token is the last name of the page before."""
        if request.page_token:
            check_collection(request.page_token)
        page = await self._admin.describe_page(
            current_caller().may_read, request.page_token, _page_size(request.page_size)
        )
        self._hide(*page.collections)
        return page

    async def GetCollection(
        self, request: admin_pb2.GetCollectionRequest, context: Context
    ) -> admin_pb2.GetCollectionResponse:
        """Describes a collection."""
        name = check_collection(request.collection or DEFAULT_COLLECTION)
        described = await self._admin.describe(name)
        self._hide(described)
        return admin_pb2.GetCollectionResponse(collection=described)

    async def DropCollection(
        self, request: admin_pb2.DropCollectionRequest, context: Context
    ) -> admin_pb2.DropCollectionResponse:
        """Removes a collection for good; returns once nothing of it is left."""
        if not request.collection:
            raise InvalidRequest(
                "collection is empty; name the one to drop, even default", field="collection"
            )
        return await self._admin.drop(request.collection, _who(request), request.why)

    async def SetCollectionName(
        self, request: admin_pb2.SetCollectionNameRequest, context: Context
    ) -> admin_pb2.SetCollectionNameResponse:
        """Lets a second name point to a collection, or frees it."""
        if request.target:
            current_caller().require(Right.ADMIN, "SetCollectionName", request.target)
        names = await self._admin.set_name(
            request.collection, request.target, _who(request), request.why
        )
        return admin_pb2.SetCollectionNameResponse(names=names)

    async def GetPolicies(
        self, request: admin_pb2.GetPoliciesRequest, context: Context
    ) -> admin_pb2.GetPoliciesResponse:
        """Returns the policies that were set for a collection."""
        found = await self._policies.read(request.collection or DEFAULT_COLLECTION)
        return admin_pb2.GetPoliciesResponse(policies=found)

    async def SetPolicies(
        self, request: admin_pb2.SetPoliciesRequest, context: Context
    ) -> admin_pb2.SetPoliciesResponse:
        """Replaces the policies of a collection."""
        made = await self._policies.write(
            request.collection or DEFAULT_COLLECTION,
            request.toml,
            expected=request.expected_number,
            who=_who(request),
            why=request.why,
        )
        return admin_pb2.SetPoliciesResponse(policies=made)

    async def ListSnapshots(
        self, request: admin_pb2.ListSnapshotsRequest, context: Context
    ) -> admin_pb2.ListSnapshotsResponse:
        """Lists manifests, newest first; a page token is the last id of the page before."""
        size = _page_size(request.page_size)
        collection = check_collection(request.collection or DEFAULT_COLLECTION)
        if request.page_token:
            check_snapshot_id(request.page_token, "page_token")

        def read() -> admin_pb2.ListSnapshotsResponse:
            ids = self._store.snapshot_ids(collection)
            if request.page_token:
                ids = [one for one in ids if one < request.page_token]
            elif not ids:
                self._store.alias_in_force(collection)  # Raises NotFound with the remedy.
            page = ids[:size]
            manifests = [_summary(self._store, collection, one) for one in page]
            self._hide(*manifests)
            token = page[-1] if len(ids) > size else ""
            return admin_pb2.ListSnapshotsResponse(snapshots=manifests, next_page_token=token)

        return await read_store(read)

    async def GetSnapshot(
        self, request: admin_pb2.GetSnapshotRequest, context: Context
    ) -> admin_pb2.GetSnapshotResponse:
        """Returns one manifest."""
        collection = request.collection or DEFAULT_COLLECTION

        def read() -> snapshot_pb2.Manifest:
            wanted = request.snapshot_id or self._store.alias_in_force(collection).current
            manifest = self._store.manifest(collection, wanted)
            self._hide(manifest)
            return manifest

        return admin_pb2.GetSnapshotResponse(snapshot=await read_store(read))

    async def GetAliases(
        self, request: admin_pb2.GetAliasesRequest, context: Context
    ) -> admin_pb2.GetAliasesResponse:
        """Returns the current alias record and older ones."""
        collection = request.collection or DEFAULT_COLLECTION
        check_range(request.history, "history", LIMITS["GetAliasesRequest.history"])

        def read() -> admin_pb2.GetAliasesResponse:
            in_force = self._store.alias_in_force(collection)
            records = self._store.alias_records(collection)
            reply = admin_pb2.GetAliasesResponse(in_force=in_force)
            for record in itertools.islice(records, 1, 1 + request.history):
                check_needed()
                reply.history.append(record)
            _remove_secrets(reply.in_force, *reply.history)
            return reply

        return await read_store(read)

    async def GetServingStatus(
        self, request: admin_pb2.GetServingStatusRequest, context: Context
    ) -> admin_pb2.GetServingStatusResponse:
        """Returns the snapshots served, and those that the aliases name.

        Only of the collections that the caller may read.
        """
        collections = []
        caller = current_caller()
        for served in self._collections.in_force:
            if not caller.may_read(served.name):
                continue
            desired = self._desired.get(served.name)
            loaded = self._collections.loaded.of_collection(served.name)
            replicas = await served.ready_replicas()
            live = await self._live.report(served)
            canary = self._collections.canary(served.name)
            collections.append(
                admin_pb2.CollectionStatus(
                    collection=served.name,
                    epoch=served.epoch,
                    snapshot_id=served.snapshot_id,
                    fingerprint=served.fingerprint,
                    documents=served.documents,
                    chunks=served.chunks,
                    shards_total=len(served.shards),
                    shards_ready=sum(map(bool, replicas)),
                    replicas_ready=replicas,
                    newest_epoch=desired.epoch if desired else served.epoch,
                    newest_snapshot_id=desired.snapshot_id if desired else served.snapshot_id,
                    problem=desired.problem if desired else "",
                    loaded_snapshot_ids=[one.key.snapshot_id for one in loaded],
                    live=None if live is None else _live_status(live),
                    canary_snapshot_id=canary.snapshot_id if canary else "",
                )
            )
        served_names = {one.collection for one in collections}
        for name, desired in sorted(self._desired.items()):
            if name not in served_names and caller.may_read(name):
                # The snapshot is published, but was never ready on this router.
                collections.append(
                    admin_pb2.CollectionStatus(
                        collection=name,
                        newest_epoch=desired.epoch,
                        newest_snapshot_id=desired.snapshot_id,
                        problem=desired.problem,
                    )
                )
        await self._add_trainings(collections)
        states = () if self._feed_block is None else self._feed_block.states
        return admin_pb2.GetServingStatusResponse(
            collections=collections,
            nearline_version=nearline.__version__,
            warning=self._warning,
            resources=[admin_pb2.WatchedResource(**one._asdict()) for one in states],
        )

    def _hide(self, *described: snapshot_pb2.Manifest | admin_pb2.Collection) -> None:
        """Removes what documents brought, which may be those of other tenants."""
        if self._visible() is None:
            return
        for one in described:
            if isinstance(one, snapshot_pb2.Manifest):
                one.ClearField("sources")
                one.ClearField("files")
            declared = [field for field in one.attributes if not field.inferred]
            del one.attributes[:]
            one.attributes.extend(declared)

    async def _add_trainings(self, collections: Sequence[admin_pb2.CollectionStatus]) -> None:
        """Adds the status that upkeep last wrote; without a Redis that answers, nothing."""
        if self._trainings is None or not collections:
            return
        try:
            async with asyncio.timeout(_TRAININGS_S):
                found = await self._trainings.get([one.collection for one in collections])
        except (NotReady, TimeoutError):
            return
        for one in collections:
            if one.collection in found:
                one.training.CopyFrom(found[one.collection])

    async def PromoteSnapshot(
        self, request: admin_pb2.PromoteSnapshotRequest, context: Context
    ) -> admin_pb2.PromoteSnapshotResponse:
        """Checks a snapshot and makes it current; routers switch to it once it is loaded.

        The verdict of the gate comes from its report in the store. A request can only override it
        with a reason. Policies on trial become those of the collection.
        """
        collection = check_collection(request.collection or DEFAULT_COLLECTION)
        tried = await asyncio.to_thread(self._store.newest_alias_record, collection)
        if tried and tried.rollout.policies and tried.canary == request.snapshot_id:
            who, why, expected = _who(request), request.why, request.expected_epoch
            aliases.check_epoch(self._store, collection, expected or tried.epoch)
            record = await self._policies.promote(collection, tried, who=who, why=why)
            return admin_pb2.PromoteSnapshotResponse(record=record)
        check = await self._live.promotion_check(collection)

        def promote() -> snapshot_pb2.AliasRecord:
            aliases.check_epoch(self._store, collection, request.expected_epoch)
            verdict, epoch = require_gate_pass(
                self._store, collection, request.snapshot_id, request.gate.forced_because
            )
            return aliases.promote(
                self._store,
                collection,
                request.snapshot_id,
                check=check,
                # The verdict is valid for this epoch only.
                expected_epoch=request.expected_epoch or epoch,
                who=_who(request),
                why=request.why,
                gate=verdict,
            )

        return admin_pb2.PromoteSnapshotResponse(record=await asyncio.to_thread(promote))

    async def RollbackSnapshot(
        self, request: admin_pb2.RollbackSnapshotRequest, context: Context
    ) -> admin_pb2.RollbackSnapshotResponse:
        """Makes the snapshot before the current one current again."""
        collection = check_collection(request.collection or DEFAULT_COLLECTION)
        record = await asyncio.to_thread(
            aliases.roll_back,
            self._store,
            collection,
            check=await self._live.promotion_check(collection),
            expected_epoch=request.expected_epoch,
            who=_who(request),
            why=request.why,
        )
        return admin_pb2.RollbackSnapshotResponse(record=record)

    async def SetTrafficSplit(
        self, request: admin_pb2.SetTrafficSplitRequest, context: Context
    ) -> admin_pb2.SetTrafficSplitResponse:
        """Starts a trial of a snapshot alongside the current one, or ends it.

        The gate must have passed the snapshot, as in `PromoteSnapshot`.
        """
        collection = check_collection(request.collection or DEFAULT_COLLECTION)
        if request.rollout.policies:
            # Nothing to gate: the snapshot answers already.
            await asyncio.to_thread(self._policies.parse, request.rollout.policies)
        elif not request.canary_snapshot_id:
            record = await asyncio.to_thread(
                aliases.end_split,
                self._store,
                collection,
                expected_epoch=request.expected_epoch,
                who=_who(request),
                why=request.why,
            )
            return admin_pb2.SetTrafficSplitResponse(record=record)
        check = await self._live.promotion_check(collection)

        def split() -> snapshot_pb2.AliasRecord:
            aliases.check_share(request.canary_share)
            aliases.check_epoch(self._store, collection, request.expected_epoch)
            verdict, epoch = None, 0
            if not request.rollout.policies:
                verdict, epoch = require_gate_pass(
                    self._store, collection, request.canary_snapshot_id, request.gate.forced_because
                )
            return aliases.split(
                self._store,
                collection,
                request.canary_snapshot_id,
                request.canary_share,
                rollout=request.rollout if request.HasField("rollout") else None,
                check=check,
                expected_epoch=request.expected_epoch or epoch,
                who=_who(request),
                why=request.why,
                gate=verdict,
            )

        return admin_pb2.SetTrafficSplitResponse(record=await asyncio.to_thread(split))

    async def GetRolloutStatus(
        self, request: admin_pb2.GetRolloutStatusRequest, context: Context
    ) -> admin_pb2.GetRolloutStatusResponse:
        """Returns the results of the trial of a canary so far."""
        collection = check_collection(request.collection or DEFAULT_COLLECTION)
        record = await read_store(self._store.alias_in_force, collection)
        reply = admin_pb2.GetRolloutStatusResponse(
            in_force=record, problem=self._canaries.problem(collection)
        )
        _remove_secrets(reply.in_force)
        trial = self._collections.trials.get(collection)
        if trial is not None and trial.split.epoch == record.epoch:
            fill_rollout_status(reply, trial)
        proposal = await read_store(newest_proposal, self._store, collection)
        if proposal is not None and proposal.state is ProposalState.OPEN:
            reply.proposed_snapshot_id = proposal.snapshot_id
            reply.proposal_reason = proposal.reason
        return reply


def _who(request: Any) -> str:
    """Returns the caller of a change; where no credentials are required, the request names it."""
    caller = current_caller()
    who: str = request.who if caller is ANONYMOUS else caller.name
    return who


def _page_size(requested: int) -> int:
    size = page_size(current_limits(), requested)
    check_range(size, "page_size", LIMITS["ListSnapshotsRequest.page_size"])
    return size


def _remove_secrets(*records: snapshot_pb2.AliasRecord) -> None:
    for record in records:
        if record.HasField("rollout"):
            record.rollout.ClearField("rollout_id")


def fill_rollout_status(reply: admin_pb2.GetRolloutStatusResponse, trial: Trial) -> None:
    """Adds the results of a trial on this router to a reply."""
    split = trial.split
    reply.running = True
    current, canary = trial.analysis.arms()
    for arm, snapshot_id, state in (
        (types_pb2.ARM_CURRENT, split.current, current),
        (types_pb2.ARM_CANARY, split.canary, canary),
    ):
        figures: dict[str, Any] = asdict(state)
        del figures["p95_ms"]
        reply.arms.add(arm=arm, snapshot_id=snapshot_id, **figures)
    for test in trial.analysis.tests():
        reply.tests.add(name=test.name, evidence=test.evidence, limit=test.limit, seen=test.seen)
    for one in trial.analysis.verdicts():
        if not current_caller().names_tenants:
            one.ClearField("tenant")
        reply.verdicts.append(one)
    reply.compared = trial.overlap.requests
    reply.overlap = trial.overlap.mean


def _live_status(report: LiveReport) -> admin_pb2.LiveStatus:
    times = {
        "oldest_change_time": timestamp(report.oldest_change_time),
        "archive_time": timestamp(report.archive_time),
    }
    return admin_pb2.LiveStatus(**(report._asdict() | times))


def _summary(store: Store, collection: str, snapshot_id: str) -> snapshot_pb2.Manifest:
    """Returns a manifest without its files; of one that cannot be read, its ids."""
    check_needed()
    try:
        manifest = store.manifest(collection, snapshot_id)
    except (SnapshotCorrupt, SnapshotMismatch):
        return snapshot_pb2.Manifest(collection=collection, snapshot_id=snapshot_id)
    manifest.ClearField("files")
    return manifest
