"""Checks the trained models of a snapshot: whether they are there, and their quality."""

from __future__ import annotations

from index_builder.behaviour.manifest_entries import POPULAR
from index_builder.evaluation.bootstrap import paired_interval
from index_builder.releases.comparison import Comparison
from index_builder.releases.gate_report import Check, SkippedCheck, make_check
from index_builder.releases.offline_eval import future_interactions, ndcg_of_lists
from nearline.counts import counted
from nearline.v1 import snapshot_pb2

_K = 10
# With fewer users, a mean NDCG is not meaningful.
MIN_USERS = 20
_NOT_TRAINED = "it was trained on no interactions"
_WORSE = (
    "its lists are worse than the current ones: train on all interactions (--learn, without "
    "--keep-days), or keep the current models (build without --interactions)"
)


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

    These are interactions after the training of both, or those that the training held out. A
    snapshot without models is refused if the live one has some.
    """
    limit = comparison.limits.max_recommend_loss
    live = comparison.require_live(limit)
    ours, theirs = comparison.candidate.trained, live.trained
    if theirs is None:
        raise SkippedCheck("the live snapshot was trained on no interactions")
    if ours is None:
        found = f"{_NOT_TRAINED}, and the live snapshot was"
        remedy = "build with the interactions: --learn, or --interactions FILE"
        return make_check("recommend", False, found, remedy)
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


_NO_LATER = (
    "no interactions after its training are available: pass --interactions FILE, or --redis URL "
    "for recorded ones"
)


def _too_few(users: int) -> str:
    return f"{users} known users have new interactions after its training; {MIN_USERS} are needed"
