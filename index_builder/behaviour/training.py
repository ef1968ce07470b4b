"""Trains the models of a snapshot: choices on validation, then training on all interactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_builder.behaviour.candidate_generators import CandidateGenerator, train_candidates
from index_builder.behaviour.comparison import ServingModels, compare
from index_builder.behaviour.debias_selection import (
    DebiasChoice,
    select_debias,
    unmeasured,
    validated,
)
from index_builder.behaviour.evaluation_task import make_task, only_known_items
from index_builder.behaviour.id_remap import map_ids, remap_tables
from index_builder.behaviour.lambdamart import unavailable_reason
from index_builder.behaviour.manifest_entries import add_choice, add_ranker, blend_card, tables_read
from index_builder.behaviour.model_selection import (
    BlendChoice,
    choose_blend,
    choose_popularity_table,
)
from index_builder.behaviour.ranker_dataset import feature_generators
from index_builder.behaviour.ranker_selection import WINDOWS, TrainedRanker, fit_rankers
from index_builder.behaviour.sequence_trainer import MAX_ITEMS, train_sequences
from index_builder.behaviour.tables import build_tables
from index_builder.behaviour.training_cost import (
    BLEND_S,
    DEBIAS_S,
    TrainingProgress,
    check_memory,
)
from index_builder.behaviour.user_item_matrix import has_repeats, newest_counted
from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.interactions.records import Interactions
from index_builder.interactions.segments import with_segments
from index_builder.interactions.splits import Split, validation_windows
from index_builder.options.training_options import VALIDATE_ON, TrainingOptions
from nearline.errors import InvalidRequest
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.sequences import SequenceModel
from retrieval.behaviour.tables import BehaviourTables

# With fewer users, NDCG is uncertain by 0.1, and the best of twenty candidates is a matter of
# chance.
MIN_TESTED = 20
# Served if there is too little data to choose a blend: two models without settings.
_DEFAULT_BLEND = {"item_to_item plain": 1.0, "popular plain": 1.0}


class TrainedBehaviour(NamedTuple):
    """The result of training.

    unknown: Number of interactions left out because their items are not in the snapshot.
    notes: Messages for the user.
    """

    tables: BehaviourTables
    card: snapshot_pb2.BehaviourCard
    unknown: int
    notes: Sequence[str]


def train_behaviour(
    learning: TrainingOptions,
    ids: Sequence[str],
    seed: int,
    advance: Callable[[int], None],
    device: BuildDevice = CPU_DEVICE,
    serving: ServingModels | None = None,
) -> TrainedBehaviour:
    """Trains models on interactions with some items; deterministic on the CPU.

    Args:
        learning: Interactions and options.
        ids: Ids of the items of a snapshot, ascending; the number of an item is its position.
        advance: Called with the percent that are done; one is left at the end, for the tables.
        device: Trains the factors.
        serving: The models that serve, to compare with. Optional.
    Raises: InvalidRequest: no interaction is with any of the items, or the requested split leaves
        nothing to test on.
    """
    rows, unknown = _known(learning.interactions, ids)
    rows = with_segments(rows, learning.attributes)
    check_memory(rows)
    notes: list[str] = []
    if newest := newest_counted(rows):
        notes.append(
            f"some users have very many interactions: pairs of items are counted in the newest "
            f"{newest} of each user"
        )
    unranked = unavailable_reason()
    if unranked:
        notes.append(f"no ranker was trained: {unranked}")
    again = has_repeats(rows)
    windows = _windows(learning, rows, seed, notes)
    progress = TrainingProgress(
        rows, [one.train for one in windows], advance, ranks=not unranked, repeats=again
    )
    # Each continues the one before.
    *earlier, latest = train_sequences(
        [*(one.train for one in reversed(windows)), rows], seed, progress.add
    )
    if latest is None:
        notes.append(
            "no model of order was trained: it needs users with two interactions, and at most "
            f"{MAX_ITEMS} items"
        )
    choices, rankers, debias, comparisons = _select_blends(
        learning,
        windows,
        earlier[::-1],
        seed,
        notes,
        progress,
        device,
        serving,
        ranks=not unranked,
        again=again,
    )
    candidates = train_candidates(
        rows, repeats=again, seed=seed, device=device, done=progress.add, sequences=latest
    )
    progress.finish()
    cards = [
        _blend_card(repeats, weights, choice, rankers.get(repeats), candidates, learning)
        for repeats, weights, choice in choices
    ]
    for blend in cards:
        blend.debias.CopyFrom(debias.by_repeats[blend.repeats])
    popular = choose_popularity_table((choice for *_, choice in choices), candidates)
    tables = build_tables(rows, candidates, tables_read(cards) | {popular})
    texts = {repeats: one.text for repeats, one in rankers.items() if one.card.kept}
    tables = tables._replace(rankers=texts)
    card = snapshot_pb2.BehaviourCard(
        interactions=len(rows.user),
        users=len(rows.users),
        items=len(rows.items),
        blends=cards,
        kind_weights=learning.kind_weights,
        popularity_table=popular,
        similar_debias=debias.similar,
        recorded=learning.recorded,
        comparisons=comparisons,
        segments=rows.segments,
    )
    # A single wrong time of the future would make the models look new for years.
    card.newest_time.FromMicroseconds(min(int(rows.time_us.max()), time.time_ns() // 1_000))
    return TrainedBehaviour(
        remap_tables(tables, map_ids(rows.items, ids), ids), card, unknown, notes
    )


def _known(interactions: Interactions, ids: Sequence[str]) -> tuple[Interactions, int]:
    """Returns the rows with items of the snapshot, and the number of other rows.

    Users and items are renumbered in order of their ids, without those that have no row.
    """
    numbers = map_ids(interactions.items, ids)
    known = numbers[interactions.item] >= 0
    rows = interactions.some(known)
    if not len(rows.item):
        raise InvalidRequest(
            f"none of the {len(known)} interactions is with a document of the corpus: item ids are "
            f"{_examples(interactions.items)}, document ids {_examples(ids)}; check the item "
            "column and --id-column",
            field="interactions",
        )
    users, user = _renumber(rows.users, rows.user)
    items, item = _renumber(rows.items, rows.item)
    return rows._replace(users=users, items=items, user=user, item=item), len(known) - len(
        rows.item
    )


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(repr(one) for one in ids[:3])


def _renumber(
    ids: Sequence[str], numbers: NDArray[np.int32]
) -> tuple[Sequence[str], NDArray[np.int32]]:
    """Renumbers the ids that occur, in order of the ids."""
    order = sorted(np.unique(numbers).tolist(), key=ids.__getitem__)
    place = np.zeros(len(ids), np.int32)
    place[order] = np.arange(len(order))
    return [ids[one] for one in order], place[numbers]


_SelectedBlend = tuple[bool, dict[str, float], BlendChoice | None]


def _select_blends(
    learning: TrainingOptions,
    parts: Sequence[Split],
    sequences: Sequence[SequenceModel | None],
    seed: int,
    notes: list[str],
    progress: TrainingProgress,
    device: BuildDevice,
    serving: ServingModels | None,
    *,
    ranks: bool,
    again: bool,
) -> tuple[
    list[_SelectedBlend],
    Mapping[bool, TrainedRanker],
    DebiasChoice,
    Sequence[snapshot_pb2.ComparisonCard],
]:
    """Selects the blends without and with repeats, and trains their rankers.

    Args:
        parts: The validation split and earlier ones; empty if there is nothing to choose on.
        sequences: The model of order of each.
        ranks: Whether rankers are trained.
        again: Whether users have items again. If not, both kinds of lists have the same blend.
    Returns: For each blend, its weights by candidate name, and how it was chosen (None if nothing
        could be chosen); the rankers, by whether their lists may repeat items; the discounts for
        popularity; and comparisons with other lists.
    """
    if not parts:
        same = unmeasured(learning.popularity_debias)
        debias = DebiasChoice(same, {False: same, True: same})
        return [(repeats, _DEFAULT_BLEND, None) for repeats in (False, True)], {}, debias, ()
    trial = train_candidates(
        parts[0].train,
        repeats=again,
        seed=seed,
        device=device,
        done=progress.add,
        sequences=sequences[0],
    )
    split_name = learning.validate_on or VALIDATE_ON
    chosen: list[_SelectedBlend] = []
    for repeats in (False, True)[: 1 + again]:
        only_known = only_known_items(split_name)
        task = make_task(parts[0], repeats=repeats, only_known=only_known)
        if len(task.users) < MIN_TESTED:
            notes.append(
                f"only {len(task.users)} users can be tested, but {MIN_TESTED} are needed to "
                f"choose a blend{' with repeats' if repeats else ''}: item-to-item and popularity "
                "serve, unweighted"
            )
            chosen.append((repeats, _DEFAULT_BLEND, None))
            continue
        usable = [one for one in trial if repeats or not one.only_repeats]
        choice = choose_blend(usable, task, learning.k, seed)
        chosen.append((repeats, dict(choice.weights), choice))
        progress.add(BLEND_S)
    weights = {repeats: of_blend for repeats, of_blend, choice in chosen if choice is not None}
    rankers: Mapping[bool, TrainedRanker] = {}
    if ranks:
        rankers = fit_rankers(
            parts, trial, weights, split_name, learning.k, seed, progress.add, device, sequences
        )
    only_known = only_known_items(split_name)
    choices = {repeats: choice for repeats, _, choice in chosen}
    debias = select_debias(learning, parts[0], trial, choices, rankers, only_known, seed)
    comparisons: Sequence[snapshot_pb2.ComparisonCard] = ()
    if (served := choices[False]) is not None:
        comparisons = compare(
            parts[0],
            validated(parts[0], trial, served, rankers.get(False), repeats=False),
            debias.by_repeats[False].value,
            learning.k,
            seed,
            only_known=only_known,
            serving=serving,
        )
    progress.add(DEBIAS_S)
    if not again:
        chosen.append((True, *chosen[0][1:]))
        debias.by_repeats[True] = debias.by_repeats[False]
    return chosen, rankers, debias, comparisons


def _windows(
    learning: TrainingOptions, rows: Interactions, seed: int, notes: list[str]
) -> Sequence[Split]:
    """Returns the validation split and earlier ones; empty if there is nothing to choose on."""
    try:
        return validation_windows(rows, learning.validate_on or VALIDATE_ON, WINDOWS, seed)
    except InvalidRequest as error:
        if learning.validate_on:
            raise
        notes.append(f"no blend was chosen ({error.message}): item-to-item and popularity serve")
        return ()


def _blend_card(
    repeats: bool,
    weights: Mapping[str, float],
    choice: BlendChoice | None,
    trained: TrainedRanker | None,
    candidates: Sequence[CandidateGenerator],
    learning: TrainingOptions,
) -> snapshot_pb2.BlendCard:
    card = blend_card(candidates, weights, repeats=repeats)
    if choice is not None:
        add_choice(card, choice, learning.validate_on or VALIDATE_ON, learning.k)
    if trained is not None:
        add_ranker(card, trained, feature_generators(candidates, weights, repeats=repeats))
    return card
