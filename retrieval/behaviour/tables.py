"""The behaviour tables of a snapshot, and how they are stored.

The files are in behaviour/. Items are in order of number, which is the order of their ids:
    items.arrow: id string; interactions int64, the training data; popularity float32.
    keys.npy, key_numbers.npy: `ItemKeys`.
    <table>.npy: (items,) float32, popularity of another kind.
    trending.npy, repeat_rate.npy, repeat_days.npy: (items,) float32 >= 0, see
        `index_builder.behaviour.repurchase_rates`; older builds lack them.
    first_day.npy: (items,) float32, day of an item's first interaction since 1970, 0 if it has
        none; only if a ranker reads it.
    segment_lifts.npy: (items, segments) float32, see `segments`; if the card names any.
    ranker_no_repeats.txt, ranker_repeats.txt: trees in LightGBM's text format, if there are any.
    sequence.npy, sequence.decay.npy, sequence.transition.npy: `SequenceModel`, the bias being the
        last row of the third; only if a blend or a ranker reads it.
    factors.npy, factors.gram.npy: `ItemFactors`; factors.options.npy: (2,) float64, its
        regularisation and alpha.
What grows with lists and users is in a folder for each shard, behaviour/NNN/:
    numbers.npy: (r,) int32, numbers of the items of the shard, ascending.
    <table>.starts.npy, .others.npy, .scores.npy: an `ItemLists` of all items, with the entries
        that are items of the shard, as positions in numbers.npy.
    users.arrow: id string of the users of the shard, ascending.
    histories.starts.npy, .items.npy, .time_us.npy, .weight.npy: `UserHistories` with item numbers.
Older builds have these in behaviour/ instead, once for all shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.features import ITEM_TABLES
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_lists import ItemLists
from retrieval.behaviour.segments import SEGMENT_LIFTS
from retrieval.behaviour.sequences import SEQUENCE, SequenceModel, read_sequences
from retrieval.behaviour.table_division import join_histories, join_lists
from retrieval.behaviour.table_files import (
    ITEMS_FILE,
    NUMBERS,
    REMEDY,
    USERS_FILE,
    check_range,
    read_array,
    read_columns,
    read_factors,
    read_histories,
    read_lists,
    read_numbers,
    read_text,
)

FOLDER = "behaviour"
# Tables that every snapshot has, even if its blends do not read them.
POPULARITY, SESSIONS = "popularity", "session"
# For each item: popularity decayed within days; share of its users who had the item again, 0..1;
# median days until they did, 0 if unknown.
TRENDING, REPEAT_RATE, REPEAT_DAYS = "trending", "repeat_rate", "repeat_days"
ITEM_STATISTICS = (TRENDING, REPEAT_RATE, REPEAT_DAYS)
_POPULARITY_MODELS = ("popular", "buy_again")
_FACTOR_MODEL = "als"
_NAME = re.compile(r"[a-z0-9_]{1,64}")


class BehaviourTables(NamedTuple):
    """The behaviour tables of a snapshot.

    ids: By number, ascending. interactions: (items,) int64, training data; 0 if untrained.
    popularity: By name, (items,) float32 each, including `ITEM_STATISTICS` unless the build is too
        old. lists: By name.
    rankers: Trees in LightGBM's text format, by whether items that the user had may be shown again;
        empty without rankers.
    sequences: None if neither a blend nor a ranker reads it.
    """

    ids: Sequence[str]
    interactions: NDArray[np.int64]
    popularity: Mapping[str, NDArray[np.float32]]
    lists: Mapping[str, ItemLists]
    factors: ItemFactors
    histories: UserHistories
    rankers: Mapping[bool, str] = MappingProxyType({})
    sequences: SequenceModel | None = None


class RequiredTables(NamedTuple):
    """Names of the tables that blends read, and of those that every snapshot has."""

    popularity: frozenset[str]
    lists: frozenset[str]
    sequences: bool


def required_tables(card: snapshot_pb2.BehaviourCard) -> RequiredTables:
    """Returns the names of the tables that a card requires."""
    popularity, lists = {POPULARITY, card.popularity_table or POPULARITY}, {SESSIONS}
    popularity |= {SEGMENT_LIFTS} if card.segments else set()
    parts = [part for blend in card.blends for part in blend.parts]
    for blend in card.blends:
        if blend.ranker.kept:
            parts += blend.ranker.sources
            popularity |= {*ITEM_TABLES}
    for part in parts:
        if part.model in _POPULARITY_MODELS:
            popularity.add(part.table)
        elif part.model not in (_FACTOR_MODEL, SEQUENCE):
            lists.add(part.table)
    sequences = any(part.model == SEQUENCE for part in parts)
    return RequiredTables(frozenset(popularity), frozenset(lists), sequences)


def ranker_file(*, repeats: bool) -> str:
    """Returns the file name of a ranker's trees."""
    return f"ranker_{'repeats' if repeats else 'no_repeats'}.txt"


def tables_folder(shard: int) -> str:
    """Returns the path of the tables of a shard in a snapshot."""
    return f"{FOLDER}/{shard:03d}"


def divided_shards(manifest: snapshot_pb2.Manifest) -> int:
    """Returns the number of shards that the tables are divided into; 0 in older builds."""
    names = {one.path for one in manifest.files}
    count = 0
    while f"{tables_folder(count)}/{NUMBERS}.npy" in names:
        count += 1
    return count


def read_ranker_texts(store: Store, manifest: snapshot_pb2.Manifest) -> Mapping[bool, str]:
    """Reads the trees of the rankers of a snapshot, by whether their lists may repeat items.

    Raises: SnapshotCorrupt: a file does not match the manifest.
    """
    kept = [one.repeats for one in manifest.behaviour.blends if one.ranker.kept]
    files = [f"{FOLDER}/{ranker_file(repeats=repeats)}" for repeats in kept]
    if files:
        store.fetch(manifest.collection, manifest.snapshot_id, files)
    folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
    return {repeats: read_text(folder / file) for repeats, file in zip(kept, files, strict=True)}


def read_users(
    store: Store, manifest: snapshot_pb2.Manifest, shards: Iterable[int] | None = None
) -> list[str]:
    """Reads the users whose interactions a snapshot was trained on, in order of id.

    Args:
        manifest: Of a snapshot with behaviour.
        shards: Shards whose users are wanted. Optional; None: all. Older builds have one part.
    Raises: SnapshotCorrupt: a file does not match the manifest.
    """
    divided = divided_shards(manifest)
    parts = [FOLDER]
    if divided:
        parts = [tables_folder(one) for one in (range(divided) if shards is None else shards)]
    files = [f"{part}/{USERS_FILE}" for part in parts]
    store.fetch(manifest.collection, manifest.snapshot_id, files)
    folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
    users: list[str] = []
    for file in files:
        users += read_columns(folder / file, {"id": "string"})[0].to_pylist()
    return sorted(users)


class ItemColumns(NamedTuple):
    """The columns of all items of a snapshot, by number; see `BehaviourTables`."""

    ids: Any
    interactions: NDArray[np.int64]
    popularity: Mapping[str, NDArray[np.float32]]
    lists: Sequence[str]
    sequences: SequenceModel | None


def read_item_columns(
    folder: Path, manifest: snapshot_pb2.Manifest, *, mapped: bool = False
) -> ItemColumns:
    """Reads the columns of items, and the names of the lists that the snapshot has.

    Args:
        folder: The folder behaviour/ of the snapshot, whose files are on this machine.
        mapped: Whether to map the ids, instead of reading them.
    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    wanted = required_tables(manifest.behaviour)
    for name in sorted(wanted.popularity | wanted.lists):
        # A manifest is untrusted input: no name in it may lead out of the folder.
        if not _NAME.fullmatch(name):
            raise SnapshotCorrupt(
                f"the manifest of {manifest.snapshot_id} names a table {name!r}; 1..64 of a-z 0-9 "
                f"_ are allowed; {REMEDY}"
            )
    ids, interactions, popularity = read_columns(
        folder / ITEMS_FILE,
        {"id": "string", "interactions": "int64", POPULARITY: "float32"},
        mapped=mapped,
    )
    written = {one.path for one in manifest.files}
    present = {one for one in ITEM_STATISTICS if f"{FOLDER}/{one}.npy" in written}
    shape = {SEGMENT_LIFTS: (len(ids), len(manifest.behaviour.segments))}
    arrays = {
        name: read_array(folder / f"{name}.npy", np.float32, shape.get(name, (len(ids),)))
        for name in sorted((wanted.popularity | present) - {POPULARITY})
    }
    for name in sorted(present):
        check_range(folder / f"{name}.npy", arrays[name], 1 if name == REPEAT_RATE else np.inf)
    tables = {POPULARITY: popularity.to_numpy(), **arrays}
    check_range(folder / ITEMS_FILE, tables[POPULARITY], np.inf)
    sequences = read_sequences(folder, len(ids)) if wanted.sequences else None
    return ItemColumns(ids, interactions.to_numpy(), tables, sorted(wanted.lists), sequences)


def read_tables(store: Store, manifest: snapshot_pb2.Manifest) -> BehaviourTables:
    """Reads all tables of a snapshot that has a behaviour card, of all shards.

    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    store.fetch(manifest.collection, manifest.snapshot_id, [f"{FOLDER}/"])
    root = store.snapshot_folder(manifest.collection, manifest.snapshot_id)
    folder, shards = root / FOLDER, divided_shards(manifest)
    columns = read_item_columns(folder, manifest)
    count = len(columns.ids)
    if shards:
        parts = [root / tables_folder(one) for one in range(shards)]
        numbers = [read_numbers(part, count) for part in parts]
        histories = join_histories([read_histories(part, count) for part in parts])
        lists = {
            name: join_lists(
                [
                    (of_part, read_lists(part, name, count, len(of_part)))
                    for of_part, part in zip(numbers, parts, strict=True)
                ]
            )
            for name in columns.lists
        }
    else:
        histories = read_histories(folder, count)
        lists = {name: read_lists(folder, name, count, count) for name in columns.lists}
    return BehaviourTables(
        columns.ids.to_pylist(),
        columns.interactions,
        columns.popularity,
        lists,
        read_factors(folder, count),
        histories,
        read_ranker_texts(store, manifest),
        columns.sequences,
    )
