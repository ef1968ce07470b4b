"""Which popularity serves where nothing is known of somebody: chosen on validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from index_builder.behaviour.candidate_generators import CandidateGenerator
from index_builder.behaviour.model_selection import BlendChoice
from retrieval.behaviour.tables import POPULARITY

_MODEL = "popular"
# Less than this is noise: plain counts stay.
_LEAST_GAIN = 0.001


def choose_popularity_table(
    choices: Iterable[BlendChoice | None], candidates: Sequence[CandidateGenerator]
) -> str:
    """Returns the name of the table whose items were the best lists for everybody.

    Args:
        choices: The first that there is counts: that without repeats comes nearer to somebody of
            whom nothing is known.
        candidates: Those that were chosen from, or the same trained again.
    Returns: That of plain counts where nothing could be chosen, or nothing is better.
    """
    tables = {one.name: one.table for one in candidates if one.model == _MODEL}
    plain = next(name for name, table in tables.items() if table == POPULARITY)
    choice = next((one for one in choices if one is not None), None)
    if choice is None:
        return POPULARITY
    best = choice.best(_MODEL)
    gain = choice.alone[best] - choice.alone[plain]
    return tables[best] if gain >= _LEAST_GAIN else POPULARITY
