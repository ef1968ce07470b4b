"""What was chosen, as a manifest says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.model_selection import BlendChoice
from index_builder.behaviour.ranker_dataset import feature_generators
from index_builder.behaviour.ranker_selection import TrainedRanker
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.features import ITEM_TABLES
from retrieval.behaviour.generator_spec import encode_generator


def blend_card(
    candidates: Sequence[CandidateGenerator], weights: Mapping[str, float], *, repeats: bool
) -> snapshot_pb2.BlendCard:
    """Returns a blend of candidates.

    Args:
        weights: By name of a candidate. repeats: What a user had may come again.
    """
    by_name = {one.name: one for one in candidates}
    parts = [_part(by_name[name], weight) for name, weight in weights.items()]
    return snapshot_pb2.BlendCard(repeats=repeats, parts=parts)


def add_choice(card: snapshot_pb2.BlendCard, choice: BlendChoice, how: str, k: int) -> None:
    """Adds how a blend was chosen.

    Args:
        how: Split of the validation, in words. k: Places of a list there.
    """
    card.split, card.k = how, k
    card.validation_ndcg = choice.validation
    card.alone.update(choice.alone)


def add_ranker(
    card: snapshot_pb2.BlendCard, fitted: TrainedRanker, candidates: Sequence[CandidateGenerator]
) -> None:
    """Adds a ranker to the blend that it goes with; candidates are those that are to serve."""
    card.ranker.CopyFrom(fitted.card)
    if fitted.card.kept:
        weights = {f"{part.model} {part.settings}": part.weight for part in card.parts}
        card.ranker.sources.extend(
            _part(one, weights.get(one.name, 0.0))
            for one in feature_generators(candidates, weights, repeats=card.repeats)
        )


def tables_read(cards: Sequence[snapshot_pb2.BlendCard]) -> set[str]:
    """Returns the names of the tables that blends and their rankers read."""
    read = {part.table for card in cards for part in (*card.parts, *card.ranker.sources)}
    return read | {name for card in cards if card.ranker.kept for name in ITEM_TABLES}


def _part(one: CandidateGenerator, weight: float) -> snapshot_pb2.BlendPart:
    part = encode_generator(one.generator)
    part.model, part.settings, part.table = one.model, one.settings, one.table
    part.weight = weight
    return part
