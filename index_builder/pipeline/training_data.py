"""What a build learns from in the end, beside what it was told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from index_builder.interactions.merge import (
    MergedInteractions,
    drop_older,
    interactions_from_histories,
    merge_interactions,
)
from index_builder.interactions.recorded_interactions import drop_deleted_users
from index_builder.interactions.records import Interactions
from index_builder.options.training_options import VALIDATE_ON, TrainingOptions
from index_builder.pipeline.snapshot_writer import SnapshotInputs
from nearline.errors import InvalidRequest
from nearline.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.tables import read_tables

ERASED_USER = "a user who was deleted afterwards"


class InteractionCounts(NamedTuple):
    """How many interactions were taken from where, each once, before any was left out for its user,
    age or item.

    file: Of what the build was given. recorded: Of a running service, beside those. kept: Of what
        the snapshot before learned from, beside both.
    """

    file: int = 0
    recorded: int = 0
    kept: int = 0


async def collect_training_data(
    learning: TrainingOptions, material: SnapshotInputs
) -> tuple[TrainingOptions, InteractionCounts]:
    """Adds what the snapshot before learned from, where that is wanted.

    Leaves out what users did before they were deleted, and what is too old, and counts both.

    Raises: InvalidRequest: nothing is left. SnapshotCorrupt: the snapshot before cannot be read.
        NotReady: it cannot be told who was deleted.
    """
    ancestry, erased = material.ancestry, material.options.erased
    parent = ancestry.parent if ancestry else None
    check_not_empty(learning, parent.behaviour if parent else None)
    left_out = dict(learning.left_out)
    rows, kept = learning.interactions, 0
    sources = InteractionCounts(len(rows.user) - learning.recorded, learning.recorded)
    if learning.adds and ancestry and parent and parent.HasField("behaviour"):
        rows, kept = await material.clock.in_thread(
            lambda: _with_kept(rows, ancestry.store, parent)
        )
    taken = len(rows.user)
    if erased is not None:
        rows = _counted(rows, await drop_deleted_users(rows, erased), ERASED_USER, left_out)
    if learning.keep_days:
        newer = drop_older(rows, learning.keep_days)
        reason = f"what is more than {learning.keep_days} days older than the newest"
        rows = _counted(rows, newer, reason, left_out)
    if not len(rows.user):
        raise _nothing(f"of {taken} interactions none is left", left_out)
    learning = replace(learning, interactions=rows, left_out=left_out)
    return learning, sources._replace(kept=kept)


def check_not_empty(learning: TrainingOptions, card: snapshot_pb2.BehaviourCard | None) -> None:
    """Refuses to learn from nothing at all.

    Args:
        card: Of the snapshot before; None: there is none.
    Raises: InvalidRequest.
    """
    kept = card.interactions if learning.adds and card is not None else 0
    if not kept and not len(learning.interactions.user):
        before = "" if not learning.adds else ", and the snapshot before learned from none"
        raise _nothing(f"no interactions are given, none were recorded{before}", {})


def inherit_options(learning: TrainingOptions, card: snapshot_pb2.BehaviourCard) -> TrainingOptions:
    """Fills in what was not said with how the snapshot before learned."""
    # The default is left unsaid: where it leaves nothing to test on, that is no error.
    splits = [one.split for one in card.blends if one.split not in ("", VALIDATE_ON)]
    return replace(
        learning,
        kind_weights=learning.kind_weights or dict(card.kind_weights),
        validate_on=learning.validate_on or next(iter(splits), ""),
    )


def _with_kept(
    rows: Interactions, store: Store, parent: snapshot_pb2.Manifest
) -> MergedInteractions:
    tables = read_tables(store, parent)
    return merge_interactions(rows, interactions_from_histories(tables.histories, tables.ids))


def _counted(
    before: Interactions, after: Interactions, reason: str, left_out: dict[str, int]
) -> Interactions:
    """Returns the rows that are left, and counts the others."""
    if gone := len(before.user) - len(after.user):
        left_out[reason] = left_out.get(reason, 0) + gone
    return after


def _nothing(found: str, left_out: Mapping[str, int]) -> InvalidRequest:
    reasons = "; ".join(f"{count} of {reason}" for reason, count in left_out.items())
    return InvalidRequest(
        f"there is nothing to learn from: {found}{reasons and ': '}{reasons}; name a file with "
        "--interactions, say with --redis where they are recorded, or leave out --learn",
        field="interactions",
    )
