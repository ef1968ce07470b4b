"""Blends and rankers as a manifest records them, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from nearline.v1 import snapshot_pb2
from retrieval.behaviour.features import ITEM_TABLES
from retrieval.behaviour.generator_spec import encode_generator

if TYPE_CHECKING:
    # Builds without training describe rankers, too, and run without implicit.
    from index_builder.behaviour.candidate_generators import CandidateGenerator
    from index_builder.behaviour.model_selection import BlendChoice
    from index_builder.behaviour.ranker_selection import TrainedRanker

# What `ComparisonCard.against` calls the most popular items.
POPULAR: Final = "popular"


def blend_card(
    candidates: Sequence[CandidateGenerator], weights: Mapping[str, float], *, repeats: bool
) -> snapshot_pb2.BlendCard:
    """Returns the card of a blend.

    Args:
        candidates: Generators that the blend's parts are chosen from.
        weights: Weight of each part, by name of its candidate.
        repeats: Whether items of the user's history may be recommended again.
    """
    by_name = {one.name: one for one in candidates}
    parts = [_part(by_name[name], weight) for name, weight in weights.items()]
    return snapshot_pb2.BlendCard(repeats=repeats, parts=parts)


def add_choice(card: snapshot_pb2.BlendCard, choice: BlendChoice, how: str, k: int) -> None:
    """Records on a card how its blend was chosen.

    Args:
        how: Name of the validation split.
        k: Length of the lists measured on it.
    """
    card.split, card.k = how, k
    card.validation_ndcg = choice.validation
    card.alone.update(choice.alone)


def add_ranker(
    card: snapshot_pb2.BlendCard, fitted: TrainedRanker, sources: Sequence[CandidateGenerator]
) -> None:
    """Records a ranker on the card of the blend that it refines.

    Args:
        sources: The generators whose scores the ranker reads; recorded if the ranker is to serve.
    """
    card.ranker.CopyFrom(fitted.card)
    if fitted.card.kept:
        weights = {f"{part.model} {part.settings}": part.weight for part in card.parts}
        card.ranker.sources.extend(_part(one, weights.get(one.name, 0.0)) for one in sources)


def tables_read(cards: Sequence[snapshot_pb2.BlendCard]) -> set[str]:
    """Returns the names of the tables that blends and their rankers read."""
    read = {part.table for card in cards for part in (*card.parts, *card.ranker.sources)}
    return read | {name for card in cards if card.ranker.kept for name in ITEM_TABLES}


def describe_ranker(card: snapshot_pb2.RankerCard) -> str:
    """Returns whether a ranker serves, and its gain, as text; empty if none was trained."""
    if not card.validation_users:
        return ""
    gain = (
        f"NDCG {card.blend_ndcg:.4f} -> {card.validation_ndcg:.4f} on three windows, "
        f"gain {card.gain_low:.4f} to {card.gain_high:.4f}"
    )
    if not card.kept:
        return f"not kept: {gain}"
    blend = f"{card.blend_weight:g} x blend + " if card.blend_weight else ""
    return f"{blend}{card.weight:g} x {card.trees} trees: {gain}"


def describe_debias(card: snapshot_pb2.DebiasCard) -> str:
    """Returns a discount, and what it changed on validation, as text; empty if it is 0."""
    if not card.value:
        return ""
    if not card.users:
        return f"popularity discounted by {card.value:g}"
    return (
        f"popularity discounted by {card.value:g}: "
        f"NDCG {card.undiscounted_ndcg:.4f} -> {card.ndcg:.4f}, "
        f"novelty {card.undiscounted_novelty:.2f} -> {card.novelty:.2f} bits, "
        f"coverage {card.undiscounted_coverage:.3f} -> {card.coverage:.3f}"
    )


def _part(one: CandidateGenerator, weight: float) -> snapshot_pb2.BlendPart:
    part = encode_generator(one.generator)
    part.model, part.settings, part.table = one.model, one.settings, one.table
    part.weight = weight
    return part
