"""Checks of what a snapshot learned: is it fresh, whole, and as good as it says."""

from __future__ import annotations

import hashlib

import numpy as np

from index_builder.evaluation.bootstrap import interval, paired_interval
from index_builder.releases.comparison import OFF, Comparison
from index_builder.releases.gate_report import Check, make_check, skip_check
from index_builder.releases.offline_eval import future_interactions, ndcg_of_lists, promised_ndcg
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.model import BehaviourModel

_K = 10
# Of fewer users a mean NDCG says little.
LEAST_USERS = 20
# A rule of thumb: a ranker so much better than its blend, and so good in itself, has seen what it
# was judged by. Honest ones gain little (0.3317 against 0.3201 on the shop data, docs/quality.md).
_TOO_GOOD_RATIO, _TOO_GOOD_NDCG = 3.0, 0.3
# The newest ones may have been of a user who was deleted since.
_STALE_S = 3_600.0
_NOTHING_LEARNED = "it learned from no interactions"
_LEAKED = (
    "its labels leaked: see that nothing it learned from tells of what it was judged by (the same "
    "interaction twice, times that are wrong, features made of later days), and build again with "
    "--validate-on time:0.8"
)


def check_fresh(seen: Comparison) -> Check:
    """Compares the newest interaction learned from with that of the live snapshot; an hour is
    let go.
    """
    live = seen.live
    if live is None:
        return skip_check("fresh", seen.alone)
    ours, theirs = seen.candidate.manifest, live.manifest
    if not ours.HasField("behaviour") or not theirs.HasField("behaviour"):
        which = "it" if not ours.HasField("behaviour") else "the live snapshot"
        return skip_check("fresh", f"{which} learned from no interactions")
    newest, before = ours.behaviour.newest_time, theirs.behaviour.newest_time
    behind_s = max(0.0, (before.ToMicroseconds() - newest.ToMicroseconds()) / 1e6)
    found = f"the newest interaction learned from is of {newest.ToJsonString()}"
    if behind_s:
        found += f", {behind_s / 3_600:,.1f} hours older than that of the live snapshot"
    remedy = (
        "its factors are stale: learn again (nearline build --learn --redis URL), or name the "
        "newest file of interactions"
    )
    return make_check("fresh", behind_s <= _STALE_S, found, remedy, behind_s, _STALE_S)


def check_factors(seen: Comparison) -> Check:
    """Compares the item factors with the hash that user vectors are told apart by."""
    learned, card = seen.candidate.served.learned, seen.candidate.manifest.behaviour
    if learned is None:
        return skip_check("factors", _NOTHING_LEARNED)
    found = hashlib.sha256(np.ascontiguousarray(learned.factors.vectors).tobytes()).hexdigest()
    ok = found == card.factors_id
    told = (
        f"the item factors are those that the manifest names ({card.factors_id[:12]})"
        if ok
        else f"the item factors have hash {found[:12]}, the manifest names {card.factors_id[:12]}"
    )
    remedy = "files of two builds are mixed: build again with its interactions"
    return make_check("factors", ok, told, remedy)


def check_cold_items(seen: Comparison) -> Check:
    """Compares the share of items without behaviour with that of the live snapshot."""
    limit, live = seen.limits.max_cold_growth, seen.live
    if limit < 0:
        return skip_check("cold_items", OFF)
    if live is None:
        return skip_check("cold_items", seen.alone)
    if live.served.learned is None:
        return skip_check("cold_items", "the live snapshot learned from no interactions")
    ours, theirs = _cold_share(seen.candidate.served.learned), _cold_share(live.served.learned)
    found = f"{ours:.0%} of the items have no behaviour, {theirs:.0%} of those of the live snapshot"
    remedy = (
        "see that the interactions name the ids of the corpus (--item-column), and build with all "
        "of them: --interactions FILE, or --learn"
    )
    return make_check("cold_items", ours - theirs <= limit, found, remedy, ours - theirs, limit)


def _cold_share(learned: BehaviourModel | None) -> float:
    return 1.0 if learned is None else float(1 - learned.trained.mean())


def check_recommend(seen: Comparison) -> Check:
    """Compares lists with those of the live snapshot, on what users had after both had learned."""
    limit, live = seen.limits.max_recommend_loss, seen.live
    if limit < 0:
        return skip_check("recommend", OFF)
    if live is None:
        return skip_check("recommend", seen.alone)
    ours, theirs = seen.candidate.served.learned, live.served.learned
    if ours is None or theirs is None:
        return skip_check("recommend", "not both learned from interactions")
    if seen.later is None:
        return skip_check("recommend", _NO_LATER)
    after_us = max(
        one.manifest.behaviour.newest_time.ToMicroseconds() for one in (seen.candidate, live)
    )
    losses, users = [], 0
    for blend in seen.candidate.manifest.behaviour.blends:
        repeats = blend.repeats
        wanted = future_interactions(seen.later, after_us, [ours, theirs], repeats=repeats)
        users = max(users, len(wanted.users))
        if len(wanted.users) >= LEAST_USERS:
            was = ndcg_of_lists(theirs, wanted, _K, repeats=repeats)
            now = ndcg_of_lists(ours, wanted, _K, repeats=repeats)
            losses.append((paired_interval(was, now), float(was.mean()), float(now.mean())))
    if not losses:
        return skip_check("recommend", _too_few(users))
    loss, was_ndcg, now_ndcg = max(losses, key=lambda one: one[0].mean)
    found = f"NDCG@{_K} {now_ndcg:.4f} on later interactions, the live snapshot {was_ndcg:.4f}"
    remedy = (
        "its lists are worse than those people get now: learn from all interactions (--learn, "
        "without --keep-days), or keep what was learned before (build without --interactions)"
    )
    # A loss that chance explains is none.
    ok = loss.mean <= limit or loss.low <= 0
    return make_check("recommend", ok, found, remedy, loss.mean, limit)


def check_promise(seen: Comparison) -> Check:
    """Compares lists with what their own validation promises, on what users had later."""
    limit, learned = seen.limits.max_broken_promise, seen.candidate.served.learned
    if limit < 0:
        return skip_check("promise", OFF)
    if learned is None:
        return skip_check("promise", _NOTHING_LEARNED)
    card = seen.candidate.manifest.behaviour
    if not any(promised_ndcg(one) for one in card.blends):
        return skip_check(
            "promise", "nothing was chosen on a validation split, so nothing is promised"
        )
    if seen.later is None:
        return _plausible(card, _NO_LATER)
    broken, users = [], 0
    for blend in card.blends:
        promise = promised_ndcg(blend)
        if not promise:
            continue
        wanted = future_interactions(
            seen.later, card.newest_time.ToMicroseconds(), [learned], repeats=blend.repeats
        )
        users = max(users, len(wanted.users))
        if len(wanted.users) >= LEAST_USERS:
            k = blend.k or _K
            kept = interval(ndcg_of_lists(learned, wanted, k, repeats=blend.repeats))
            # What chance may have taken away is not held against it.
            broken.append(((promise - kept.high) / promise, promise, kept.mean, k))
    if not broken:
        return _plausible(card, _too_few(users))
    short, promise, kept_ndcg, k = max(broken)
    found = (
        f"NDCG@{k} {kept_ndcg:.4f} on interactions after its training, validation promised "
        f"{promise:.4f}"
    )
    return make_check("promise", short <= limit, found, _LEAKED, max(short, 0.0), limit)


def _plausible(card: snapshot_pb2.BehaviourCard, why: str) -> Check:
    """Refuses what is too good to be true; a heuristic, so nothing passes by it."""
    for blend in card.blends:
        ranker = blend.ranker
        if not ranker.kept or not ranker.blend_ndcg:
            continue
        ratio = ranker.validation_ndcg / ranker.blend_ndcg
        if ratio > _TOO_GOOD_RATIO and ranker.validation_ndcg > _TOO_GOOD_NDCG:
            found = (
                f"its ranker promises NDCG {ranker.validation_ndcg:.4f}, {ratio:.1f} times what "
                "it ranks, which is too good to be true"
            )
            return make_check("promise", False, found, _LEAKED, ratio, _TOO_GOOD_RATIO)
    return skip_check("promise", f"{why}; what it promises is plausible")


_NO_LATER = (
    "no interactions after its training were given: --interactions FILE, or --redis URL for those "
    "that were recorded"
)


def _too_few(users: int) -> str:
    return f"{users} users that it knows did something new after its training, {LEAST_USERS} needed"
