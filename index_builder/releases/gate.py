"""The release gate: runs all checks of a candidate snapshot against the live one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from index_builder.interactions.records import Interactions
from index_builder.releases import checks_behaviour, checks_items, checks_retrieval
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import (
    Check,
    CheckOutcome,
    GateReport,
    SkippedCheck,
    make_check,
    skip_check,
)
from index_builder.releases.probes import (
    GOLDEN,
    RECORDED,
    Probes,
    golden_probes,
    probes_for,
)
from index_builder.releases.replay import Replay, replay
from index_builder.releases.snapshot_loader import LoadedSnapshot, load_snapshot
from index_builder.releases.thresholds import current_thresholds, parse_limits
from nearline.contract import Embedder
from nearline.errors import NearlineError, SnapshotCorrupt
from nearline.store.snapshot import Store
from retrieval.recommend.policies import Policies

REQUESTS = 300
# With fewer recorded searches, golden queries are used as well.
_MIN_SEARCHES, _MAX_GOLDEN = 50, 200
_NO_LIVE = "there is no live snapshot to compare with"
_NOT_LOADED = "the snapshot could not be loaded"
_Check: TypeAlias = Callable[[Comparison], Check | Awaitable[Check]]
# In order of the report, after `files` and `loads`.
_CHECKS: Mapping[str, _Check] = {
    "recall": checks_retrieval.check_recall,
    "model": checks_items.check_model,
    "moved": checks_items.check_moved,
    "missing": checks_items.check_missing,
    "overlap": checks_retrieval.check_overlap,
    "ndcg": checks_retrieval.check_ndcg,
    "latency": checks_retrieval.check_latency,
    "popular": checks_behaviour.check_popular,
    "recommend": checks_behaviour.check_recommend,
}
NAMES = ("files", "loads", *_CHECKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """Inputs of the gate besides the store.

    embedders: Embedding services by name.
    allow_model_change: Whether a change of the embedder is intended.
    later: Interactions, of which those after the training are used; None if there are none.
    policies: Policies of the surfaces; if None, the built-in ones.
    requests: Maximum number of requests sent to both snapshots.
    """

    embedders: Mapping[str, Embedder] = field(default_factory=dict)
    allow_model_change: bool = False
    later: Interactions | None = None
    policies: Policies | None = None
    requests: int = REQUESTS


async def judge(
    store: Store,
    collection: str,
    candidate_id: str,
    live_id: str | None,
    options: GateOptions = GateOptions(),
) -> GateReport:
    """Judges a snapshot by the current thresholds; loads it and the live snapshot.

    Args:
        candidate_id: The snapshot to promote.
        live_id: The live snapshot; None, or the candidate itself, runs only the checks that need no
            live one.
    Returns: A report; skipped checks give the reason.
    Raises: NotFound: there is no such candidate. Overloaded: there is not enough memory for both.
    """
    start = time.perf_counter()
    store.snapshot_folder(collection, candidate_id)  # Raises NotFound.
    thresholds = current_thresholds(store, collection)
    against = "" if live_id in (None, candidate_id) else str(live_id)
    report = GateReport(
        collection=collection,
        snapshot_id=candidate_id,
        live_id=against,
        thresholds=thresholds.number,
        checks=[],
    )

    def finished(report: GateReport) -> GateReport:
        return replace(report, seconds=time.perf_counter() - start)

    files = await asyncio.to_thread(_check_files, store, collection, candidate_id)
    if files.outcome is CheckOutcome.FAILED:
        return finished(replace(report, checks=_skip_rest([files], "its files are not intact")))
    async with contextlib.AsyncExitStack() as stack:

        async def load(snapshot_id: str) -> LoadedSnapshot:
            return await stack.enter_async_context(
                load_snapshot(store, collection, snapshot_id, options.embedders, options.policies)
            )

        try:
            candidate = await load(candidate_id)
        except (SnapshotCorrupt, NearlineError) as error:
            if error.status not in ("DATA_LOSS", "FAILED_PRECONDITION"):
                raise
            remedy = "build it again with the software version that serves it"
            failed = make_check("loads", False, error.message, remedy)
            return finished(replace(report, checks=_skip_rest([files, failed], _NOT_LOADED)))
        loads = make_check("loads", True, "this software loads it")
        live, alone = None, _NO_LIVE
        if against:
            try:
                live = await load(against)
            except NearlineError as error:
                # A broken live snapshot must not block an intact one.
                alone = f"the live snapshot could not be loaded: {error.message}"
        probes = probes_for(store, collection, live or candidate, options.requests)
        replayed = None if live is None else await _replay(live, candidate, probes)
        comparison = Comparison(
            candidate=candidate,
            live=live,
            alone=alone,
            limits=parse_limits(thresholds),
            replay=replayed,
            probes=tuple(probes.probes),
            judgements_sha256=thresholds.judgements_sha256,
            allow_model_change=options.allow_model_change,
            later=options.later,
        )
        checks = [files, loads, *[await _run(name, comparison) for name in _CHECKS]]
    report = replace(report, checks=checks)
    if replayed is not None:
        report = replace(
            report,
            requests=len(replayed.pairs),
            source=replayed.source,
            left_out=replayed.left_out,
        )
    return finished(report)


async def _run(name: str, comparison: Comparison) -> Check:
    try:
        check = _CHECKS[name](comparison)
        return check if isinstance(check, Check) else await check
    except SkippedCheck as reason:
        return skip_check(name, str(reason))


async def _replay(live: LoadedSnapshot, candidate: LoadedSnapshot, probes: Probes) -> Replay:
    """Sends recorded requests to both, and golden queries if few of them are searches."""
    found = await replay(live, candidate, probes)
    searches = sum(one.probe.query is not None for one in found.pairs)
    if probes.source == GOLDEN or searches >= _MIN_SEARCHES:
        return found
    golden = Probes(probes=golden_probes(live)[:_MAX_GOLDEN], source=GOLDEN)
    more = await replay(live, candidate, golden)
    if not more.pairs:
        return found
    source = f"{RECORDED} and {GOLDEN}" if found.pairs else GOLDEN
    return replace(found, pairs=[*found.pairs, *more.pairs], source=source)


def _check_files(store: Store, collection: str, snapshot_id: str) -> Check:
    try:
        checked = store.verify(collection, snapshot_id)
    except SnapshotCorrupt as error:
        remedy = "restore them, or build the snapshot again"
        return make_check("files", False, error.message, remedy)
    return make_check("files", True, f"{checked:,} bytes match the manifest")


def _skip_rest(made: Sequence[Check], why: str) -> list[Check]:
    return [*made, *(skip_check(name, why) for name in NAMES[len(made) :])]
