"""The way of a proposed snapshot: trial on a share of the requests, then promotion or its end.

proposed -> on trial -> promoted, or rejected by a test of the routers
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from index_builder.pipeline import upkeep_metrics
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from nearline.clients import AdminClient
from nearline.counts import counted
from nearline.durations import parse_duration
from nearline.errors import SettingsError
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.snapshots import retention
from retrieval.snapshots.proposals import (
    Proposal,
    ProposalState,
    propose,
    read_proposals,
    remove_proposal,
)

_WHO = "upkeep"
# A proposal that was rejected is followed by the next one no sooner than this.
_REJECTED_PAUSE_S = 2 * 86_400.0
_log = logging.getLogger("index_builder.upkeep")


class ReleaseLoop:
    """Moves the proposals of a store on.

    Args:
        config: Settings.
        store: The store.
        admin: A router that tries snapshots. Optional; None tries none.
        clock: Returns seconds since 1970.
    Raises: SettingsError: A trial would have to end before a promotion.
        InvalidRequest: A duration cannot be read.
    """

    def __init__(
        self,
        config: UpkeepSettings,
        store: Store,
        admin: AdminClient | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = config
        self._store = store
        self._admin = admin
        self._clock = clock
        self._age_s = parse_duration(config.trial_age, "trial_age")
        self._limit_s = parse_duration(config.trial_limit, "trial_limit")
        if self._limit_s < self._age_s:
            raise SettingsError(
                f"trial_limit {config.trial_limit} is shorter than trial_age {config.trial_age}, "
                "so every trial would end too early; raise trial_limit, or lower trial_age"
            )
        # By collection: the newest proposal and its state, once they were logged.
        self._noted: dict[str, tuple[str, ProposalState]] = {}

    async def advance(self, name: str) -> bool:
        """Takes the next step of the newest proposal; returns whether a rebuild has to wait for it.

        It has to while one is pending, and for a while after one was rejected. Outdated
        proposals are removed, since their snapshots hold back the change log.

        Raises: NotReady: The router does not answer. Conflict: The aliases changed meanwhile.
            GateFailed: The router does not accept the gate's verdict.
        """
        found = await asyncio.to_thread(read_proposals, self._store, name)
        newest = found[0] if found else None
        self._note(name, newest)
        await self._discard(name, [one for one in found if self._is_over(one)])
        if newest is None or self._is_over(newest):
            return False
        if self._settings.releases == "auto" and self._admin is not None:
            record = await asyncio.to_thread(self._store.alias_in_force, name)
            if newest.state is ProposalState.OPEN:
                await self._start(self._admin, name, newest, record)
            elif newest.state is ProposalState.ON_TRIAL:
                await self._judge(self._admin, name, newest, record)
        return newest.state is not ProposalState.PROMOTED

    def _is_over(self, proposal: Proposal) -> bool:
        """Returns whether the record and the snapshot of a proposal are of no more use."""
        match proposal.state:
            case ProposalState.OPEN:
                # In `auto`, one whose trial could not be started for so long never will be.
                waited_s = self._clock() - proposal.time_s
                return self._settings.releases == "auto" and waited_s > self._limit_s
            case ProposalState.ON_TRIAL:
                return False
            case ProposalState.OUTDATED:
                return True
            case _:
                # A rollback may follow a promotion.
                return self._clock() - proposal.settled_s >= _REJECTED_PAUSE_S

    def forget(self, name: str) -> None:
        """Forgets a collection that was dropped."""
        self._noted.pop(name, None)

    async def propose(
        self, name: str, snapshot_id: str, reason: str, judged: snapshot_pb2.AliasRecord
    ) -> None:
        """Proposes a snapshot that passed the gate; earlier ones are removed.

        Args:
            judged: The alias record when the gate judged it.
        """
        found = await asyncio.to_thread(read_proposals, self._store, name)
        await self._discard(name, [one for one in found if not one.is_pending])
        await asyncio.to_thread(propose, self._store, name, snapshot_id, reason, judged)
        await self.advance(name)

    async def _start(
        self,
        admin: AdminClient,
        name: str,
        proposal: Proposal,
        record: snapshot_pb2.AliasRecord,
    ) -> None:
        if record.canary:
            return  # Somebody tries another snapshot.
        await admin.split(
            proposal.snapshot_id,
            self._settings.trial_share,
            name,
            expected_epoch=record.epoch,
            who=_WHO,
            why=proposal.reason,
        )

    async def _judge(
        self,
        admin: AdminClient,
        name: str,
        proposal: Proposal,
        record: snapshot_pb2.AliasRecord,
    ) -> None:
        """Promotes a canary that has answered enough requests, or whose trial has lasted long.

        The routers back out one that does harm. Few requests show little, but a shop with few
        visitors wants newer models, too, and the gate has judged them.
        """
        elapsed_s = self._clock() - record.rollout.start_time.ToNanoseconds() / 1e9
        if elapsed_s < self._age_s:
            return
        status = await admin.rollout_status(name)
        ours = (arm for arm in status.arms if arm.snapshot_id == proposal.snapshot_id)
        answered = sum(arm.requests for arm in ours)
        is_over = elapsed_s >= self._limit_s
        if is_over and not status.running:
            why = status.problem or "no router tried it"
            why = f"the trial ended after {self._settings.trial_limit}: {why}"
            await admin.split("", collection=name, expected_epoch=record.epoch, who=_WHO, why=why)
        elif answered >= self._settings.trial_requests or is_over:
            requests = counted(answered, "request")
            await admin.promote(
                proposal.snapshot_id,
                name,
                expected_epoch=record.epoch,
                who=_WHO,
                why=f"{proposal.reason}; on trial it answered {requests} without harm",
            )

    async def _discard(self, name: str, proposals: Iterable[Proposal]) -> None:
        """Removes proposals, and their snapshots unless an alias or a rollback needs them."""
        for proposal in proposals:
            snapshot_id = proposal.snapshot_id
            await asyncio.to_thread(remove_proposal, self._store, name, snapshot_id)
            if proposal.state is not ProposalState.PROMOTED:
                await asyncio.to_thread(retention.remove_unused, self._store, name, snapshot_id)

    def _note(self, name: str, newest: Proposal | None) -> None:
        """Exports the newest proposal, and logs it once per state."""
        for state in ProposalState:
            # Prometheus sees an increase only of a series that it knew before.
            upkeep_metrics.proposals.labels(name, state.value)
        age_s = self._clock() - newest.time_s if newest and newest.is_pending else 0.0
        upkeep_metrics.proposal_age.labels(name).set(max(0.0, age_s))
        if newest is None or self._noted.get(name) == (newest.snapshot_id, newest.state):
            return
        self._noted[name] = (newest.snapshot_id, newest.state)
        upkeep_metrics.proposals.labels(name, newest.state.value).inc()
        extra = {
            "collection": name,
            "snapshot_id": newest.snapshot_id,
            "state": newest.state.value,
            "reason": newest.why or newest.reason,
        }
        if newest.state is ProposalState.OPEN and self._settings.releases == "propose":
            extra["next"] = f"nearline snapshots promote {newest.snapshot_id} --collection {name}"
        _log.info("proposal", extra=extra)
