"""Checks the trained models of a snapshot: freshness, integrity and quality."""

from __future__ import annotations

from index_builder.behaviour.manifest_entries import POPULAR
from index_builder.evaluation.bootstrap import interval, paired_interval
from index_builder.pipeline.behaviour_stage import factors_id
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, SkippedCheck, make_check
from index_builder.releases.offline_eval import (
    TrainedSnapshot,
    future_interactions,
    ndcg_of_lists,
    promised_ndcg,
)
from nearline.counts import counted
from nearline.v1 import snapshot_pb2

_K = 10
# With fewer users, a mean NDCG is not meaningful.
MIN_USERS = 20
# A heuristic: a ranker that is this good, and this much better than its blend, was trained on its
# own test data. Valid rankers gain little (0.3317 against 0.3201 on the shop data,
# docs/quality.md).
_TOO_GOOD_RATIO, _TOO_GOOD_NDCG = 3.0, 0.3
# The newest interactions may belong to a user who has been deleted since.
_STALE_S = 3_600.0
_NOT_TRAINED = "it was trained on no interactions"
_WORSE = (
    "its lists are worse than the current ones: train on all interactions (--learn, without "
    "--keep-days), or keep the current models (build without --interactions)"
)
_LEAKED = (
    "its labels leaked: look for duplicate interactions, wrong times and features computed from "
    "later days, and build again with --validate-on time:0.8"
)


def check_fresh(comparison: Comparison) -> Check:
    """Compares the newest training interaction with the live snapshot's; tolerates an hour."""
    live = comparison.require_live()
    ours, theirs = comparison.candidate.manifest, live.manifest
    if not ours.HasField("behaviour") or not theirs.HasField("behaviour"):
        which = "it" if not ours.HasField("behaviour") else "the live snapshot"
        raise SkippedCheck(f"{which} was trained on no interactions")
    newest, before = ours.behaviour.newest_time, theirs.behaviour.newest_time
    behind_s = max(0.0, (before.ToMicroseconds() - newest.ToMicroseconds()) / 1e6)
    found = f"the newest training interaction is from {newest.ToJsonString()}"
    if behind_s:
        found += f", {behind_s / 3_600:,.1f} hours older than that of the live snapshot"
    remedy = (
        "its factors are stale: retrain (nearline build --learn --redis URL), or build with the "
        "newest file of interactions"
    )
    return make_check("fresh", behind_s <= _STALE_S, found, remedy, behind_s, _STALE_S)


def check_factors(comparison: Comparison) -> Check:
    """Compares the item factors with the hash that user vectors refer to."""
    trained, card = comparison.candidate.trained, comparison.candidate.manifest.behaviour
    if trained is None:
        raise SkippedCheck(_NOT_TRAINED)
    found = factors_id(trained.tables)
    ok = found == card.factors_id
    text = (
        f"the item factors match the manifest ({card.factors_id[:12]})"
        if ok
        else f"the item factors have hash {found[:12]}, the manifest has {card.factors_id[:12]}"
    )
    remedy = "files of two builds are mixed: build again with the interactions"
    return make_check("factors", ok, text, remedy)


def check_cold_items(comparison: Comparison) -> Check:
    """Compares the share of items without interactions with that of the live snapshot."""
    limit = comparison.limits.max_cold_growth
    live = comparison.require_live(limit)
    if live.trained is None:
        raise SkippedCheck("the live snapshot was trained on no interactions")
    ours, theirs = (
        _cold_share(comparison.candidate.trained),
        _cold_share(live.trained),
    )
    found = f"{ours:.0%} of the items have no interactions, {theirs:.0%} in the live snapshot"
    remedy = (
        "check that the interactions use the ids of the corpus (--item-column), and build with all "
        "of them: --interactions FILE, or --learn"
    )
    return make_check("cold_items", ours - theirs <= limit, found, remedy, ours - theirs, limit)


def _cold_share(trained: TrainedSnapshot | None) -> float:
    return 1.0 if trained is None else float((trained.tables.interactions == 0).mean())


def check_popular(comparison: Comparison) -> Check:
    """Compares newly trained lists with the most popular items of the newest week.

    Only a loss that chance does not explain counts: few users of a small shop can be held out.
    """
    card, live = comparison.candidate.manifest.behaviour, comparison.live
    if comparison.candidate.trained is None:
        raise SkippedCheck(_NOT_TRAINED)
    if live is not None and live.manifest.behaviour.factors_id == card.factors_id:
        raise SkippedCheck("its models are those of the live snapshot")
    found = _compared(card, POPULAR)
    if found is None:
        raise SkippedCheck(
            f"under {MIN_USERS} users of the newest week could be held out, so it was not compared"
        )
    text = _describe(found, "the most popular items of that week")
    remedy = (
        "lists of popular items are better: wait for more interactions, or check that the ids of "
        "users and items, and the times, are right"
    )
    gain = found.ndcg - found.against_ndcg
    return make_check("popular", found.gain_high >= 0, text, remedy, gain, 0.0)


def _compared(card: snapshot_pb2.BehaviourCard, against: str) -> snapshot_pb2.ComparisonCard | None:
    return next((one for one in card.comparisons if one.against == against), None)


def _describe(found: snapshot_pb2.ComparisonCard, against: str) -> str:
    return (
        f"NDCG@{_K} is {found.ndcg:.4f} for {counted(found.users, 'user')} on held-out "
        f"interactions of the newest week, {found.against_ndcg:.4f} for {against} "
        f"(difference {found.gain_low:+.4f} to {found.gain_high:+.4f})"
    )


def check_recommend(comparison: Comparison) -> Check:
    """Compares lists with those of the live snapshot on interactions that neither knew.

    These are interactions after the training of both, or those that the training held out.
    """
    limit = comparison.limits.max_recommend_loss
    live = comparison.require_live(limit)
    ours, theirs = comparison.candidate.trained, live.trained
    if ours is None or theirs is None:
        raise SkippedCheck("not both snapshots were trained on interactions")
    if comparison.later is None:
        card = comparison.candidate.manifest.behaviour
        held_out = _compared(card, live.manifest.behaviour.factors_id)
        if held_out is None:
            raise SkippedCheck(_NO_LATER)
        found = _describe(held_out, "the live snapshot")
        lost = held_out.against_ndcg - held_out.ndcg
        ok = lost <= limit or held_out.gain_high >= 0
        return make_check("recommend", ok, found, _WORSE, lost, limit)
    after_us = max(
        one.manifest.behaviour.newest_time.ToMicroseconds() for one in (comparison.candidate, live)
    )
    losses, users = [], 0
    for blend in comparison.candidate.manifest.behaviour.blends:
        repeats = blend.repeats
        wanted = future_interactions(comparison.later, after_us, [ours, theirs], repeats=repeats)
        users = max(users, len(wanted.users))
        if len(wanted.users) >= MIN_USERS:
            was = ndcg_of_lists(theirs, wanted, _K, repeats=repeats)
            now = ndcg_of_lists(ours, wanted, _K, repeats=repeats)
            losses.append((paired_interval(was, now), float(was.mean()), float(now.mean())))
    if not losses:
        raise SkippedCheck(_too_few(users))
    loss, was_ndcg, now_ndcg = max(losses, key=lambda one: one[0].mean)
    found = (
        f"NDCG@{_K} is {now_ndcg:.4f} on later interactions, {was_ndcg:.4f} for the live snapshot"
    )
    # A loss that may be due to chance does not count.
    ok = loss.mean <= limit or loss.low <= 0
    return make_check("recommend", ok, found, _WORSE, loss.mean, limit)


def check_promise(comparison: Comparison) -> Check:
    """Compares lists with the NDCG promised by their validation, on later interactions."""
    limit, trained = comparison.limits.max_broken_promise, comparison.candidate.trained
    comparison.require_enabled(limit)
    if trained is None:
        raise SkippedCheck(_NOT_TRAINED)
    card = comparison.candidate.manifest.behaviour
    if not any(promised_ndcg(one) for one in card.blends):
        raise SkippedCheck("nothing was chosen on a validation split, so there is no promise")
    if comparison.later is None:
        return _check_plausible(card, _NO_LATER)
    shortfalls, users = [], 0
    for blend in card.blends:
        promise = promised_ndcg(blend)
        if not promise:
            continue
        wanted = future_interactions(
            comparison.later, card.newest_time.ToMicroseconds(), [trained], repeats=blend.repeats
        )
        users = max(users, len(wanted.users))
        if len(wanted.users) >= MIN_USERS:
            k = blend.k or _K
            measured = interval(ndcg_of_lists(trained, wanted, k, repeats=blend.repeats))
            # Use the upper end of the interval: a shortfall that may be due to chance does not
            # count.
            shortfalls.append(((promise - measured.high) / promise, promise, measured.mean, k))
    if not shortfalls:
        return _check_plausible(card, _too_few(users))
    shortfall, promise, measured_ndcg, k = max(shortfalls)
    found = (
        f"NDCG@{k} is {measured_ndcg:.4f} on interactions after its training; validation promised "
        f"{promise:.4f}"
    )
    return make_check("promise", shortfall <= limit, found, _LEAKED, max(shortfall, 0.0), limit)


def _check_plausible(card: snapshot_pb2.BehaviourCard, why: str) -> Check:
    """Fails rankers that are too good to be true; as a heuristic, it never passes one."""
    for blend in card.blends:
        ranker = blend.ranker
        if not ranker.kept or not ranker.blend_ndcg:
            continue
        ratio = ranker.validation_ndcg / ranker.blend_ndcg
        if ratio > _TOO_GOOD_RATIO and ranker.validation_ndcg > _TOO_GOOD_NDCG:
            found = (
                f"its ranker promises an NDCG of {ranker.validation_ndcg:.4f}, {ratio:.1f} times "
                "that of its blend, which is too good to be true"
            )
            return make_check("promise", False, found, _LEAKED, ratio, _TOO_GOOD_RATIO)
    raise SkippedCheck(f"{why}; its promise is plausible")


_NO_LATER = (
    "no interactions after its training are available: pass --interactions FILE, or --redis URL "
    "for recorded ones"
)


def _too_few(users: int) -> str:
    return f"{users} known users have new interactions after its training; {MIN_USERS} are needed"
