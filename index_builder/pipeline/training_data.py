"""The training data of a build: new, recorded and inherited interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from index_builder.interactions.imported_interactions import add_recorded_and_imported
from index_builder.interactions.merge import (
    NO_INTERACTIONS,
    MergedInteractions,
    drop_older,
    interactions_from_histories,
    merge_interactions,
)
from index_builder.interactions.recorded_interactions import drop_deleted_users
from index_builder.interactions.records import Interactions
from index_builder.options.build_options import BuildOptions
from index_builder.options.training_options import VALIDATE_ON, TrainingOptions
from index_builder.pipeline.snapshot_writer import SnapshotInputs
from nearline.errors import InvalidRequest, NotFound
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.tables import read_tables
from retrieval.users.states import UserStates

ERASED_USER = "a user who was deleted afterwards"


class InteractionCounts(NamedTuple):
    """Number of distinct interactions by origin, before any were left out.

    file: From the input of the build. recorded: Recorded by a running service or imported, unless
    they are in the file. kept: From the training data of the previous snapshot, unless they are in
    either of the others.
    """

    file: int = 0
    recorded: int = 0
    kept: int = 0


async def with_recorded_users(
    options: BuildOptions, states: UserStates | None, *, learn: bool = False
) -> BuildOptions:
    """Returns build options that leave out deleted users, and learn what was recorded or imported.

    Args:
        options: Interactions are added to its training, if it has one.
        states: The users of the collection; None if no Redis is known.
        learn: Whether to train although the options do not say so: with the choices of the models
            that serve, if there are any, and their interactions.
    Raises: NotReady: Redis is unavailable.
    """
    store = Store.open(options.store)
    if states is not None:
        deleted = partial(states.deleted, options.collection)
        attributes = partial(states.attributes, options.collection)
        options = replace(options, deleted_users=deleted, user_attributes=attributes)
    training = options.training
    if training is None and learn:
        before = current_card(store, options.collection)
        training = TrainingOptions(interactions=NO_INTERACTIONS, append=True)
        training = inherit_options(training, before or snapshot_pb2.BehaviourCard())
    if training is None:
        return options
    rows = await add_recorded_and_imported(
        training.interactions, states, store, options.collection, training.kind_weights
    )
    training = replace(training, interactions=rows.interactions, recorded=rows.added)
    return replace(options, training=training)


def current_card(store: Store, collection: str) -> snapshot_pb2.BehaviourCard | None:
    """Returns what the models that serve were trained on; None if there are none."""
    try:
        manifest = store.manifest(collection, store.alias_in_force(collection).current)
    except NotFound:
        return None
    return manifest.behaviour if manifest.HasField("behaviour") else None


async def collect_training_data(
    training: TrainingOptions, inputs: SnapshotInputs
) -> tuple[TrainingOptions, InteractionCounts]:
    """Adds the training data of the previous snapshot, if wanted.

    Leaves out and counts interactions before the deletion of their user, and those too old.

    Raises: InvalidRequest: nothing is left. SnapshotCorrupt: the previous snapshot cannot be read.
        NotReady: the list of deleted users is not available.
    """
    lineage, deleted_users = inputs.lineage, inputs.options.deleted_users
    parent = lineage.parent if lineage else None
    check_not_empty(training, parent.behaviour if parent else None)
    left_out = dict(training.left_out)
    rows, kept = training.interactions, 0
    sources = InteractionCounts(len(rows.user) - training.recorded, training.recorded)
    if training.append and lineage and parent and parent.HasField("behaviour"):
        rows, kept = await inputs.clock.in_thread(lambda: _with_kept(rows, lineage.store, parent))
    taken = len(rows.user)
    if deleted_users is not None:
        rows = _counted(rows, await drop_deleted_users(rows, deleted_users), ERASED_USER, left_out)
    if training.keep_days:
        newer = drop_older(rows, training.keep_days)
        reason = f"interactions more than {training.keep_days} days older than the newest"
        rows = _counted(rows, newer, reason, left_out)
    if not len(rows.user):
        raise _nothing_to_train_on(f"of {taken} interactions, none is left", left_out)
    training = replace(training, interactions=rows, left_out=left_out)
    if (read := inputs.options.user_attributes) is not None:
        training = replace(training, attributes=await read(rows.users))
    return training, sources._replace(kept=kept)


def check_not_empty(training: TrainingOptions, card: snapshot_pb2.BehaviourCard | None) -> None:
    """Raises InvalidRequest if there are no interactions at all to train on.

    Args:
        card: Behaviour of the previous snapshot; None if there is no snapshot.
    """
    kept = card.interactions if training.append and card is not None else 0
    if not kept and not len(training.interactions.user):
        before = "" if not training.append else ", and the previous snapshot was trained on none"
        raise _nothing_to_train_on(f"there are no new or recorded interactions{before}", {})


def inherit_options(training: TrainingOptions, card: snapshot_pb2.BehaviourCard) -> TrainingOptions:
    """Completes options with those of the previous training."""
    # The default split is not requested explicitly, because it may leave no users to test.
    splits = [one.split for one in card.blends if one.split not in ("", VALIDATE_ON)]
    return replace(
        training,
        kind_weights=training.kind_weights or dict(card.kind_weights),
        validate_on=training.validate_on or next(iter(splits), ""),
    )


def _with_kept(
    rows: Interactions, store: Store, parent: snapshot_pb2.Manifest
) -> MergedInteractions:
    tables = read_tables(store, parent)
    return merge_interactions(rows, interactions_from_histories(tables.histories, tables.ids))


def _counted(
    before: Interactions, after: Interactions, reason: str, left_out: dict[str, int]
) -> Interactions:
    """Returns the remaining rows and counts the others."""
    if removed := len(before.user) - len(after.user):
        left_out[reason] = left_out.get(reason, 0) + removed
    return after


def _nothing_to_train_on(found: str, left_out: Mapping[str, int]) -> InvalidRequest:
    reasons = "; ".join(f"{count} of {reason}" for reason, count in left_out.items())
    return InvalidRequest(
        f"there is nothing to train on: {found}{reasons and ': '}{reasons}; name a file with "
        "--interactions, point to recorded ones with --redis, or remove --learn",
        field="interactions",
    )
