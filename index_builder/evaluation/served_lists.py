"""Lists as the models of a snapshot rank them for a history, before any rule of a surface."""

from __future__ import annotations

from retrieval.behaviour.blend import DEPTH
from retrieval.behaviour.generator_names import NEAREST, USER
from retrieval.behaviour.model import BehaviourModel
from retrieval.behaviour.popularity_discount import discount_popularity
from retrieval.protocols.candidates import CandidatesRequest, KeyedHistory


def served_list(
    model: BehaviourModel, history: KeyedHistory, k: int, *, repeats: bool
) -> list[str]:
    """Returns the ids of the k best items for a history, best first; fewer if no more are known.

    Args:
        model: With its tables in this process.
        repeats: Whether items of the history may be listed again.
    """
    shard = model.local
    assert shard is not None, "the tables of the snapshot are in this process"
    found = shard.find(CandidatesRequest([USER], history, DEPTH, repeats=repeats))
    numbers, scores = model.score_user(found, history, repeats=repeats).ranked()
    debias = model.debias(repeats=repeats)
    numbers, _ = discount_popularity(numbers, scores, found.levels_of(numbers), debias)
    listed = list(found.ids_of(numbers[:k]))
    if len(listed) < k:
        # As in a served list, the nearest by factors follow.
        near = shard.find(
            CandidatesRequest([NEAREST], history, len(numbers) + k, hide_history=not repeats)
        )
        rest, _ = near.scored[0].without(numbers).ranked()
        listed += near.ids_of(rest[: k - len(listed)])
    return listed
