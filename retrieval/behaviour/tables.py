"""Reads the behaviour tables of a snapshot.

The files are in behaviour/. Items are in order of number, which is the order of their ids:
    items.arrow: id string; interactions int64, the training data; popularity float32.
    <table>.starts.npy, .others.npy, .scores.npy: an `ItemLists`.
    <table>.npy: (items,) float32, popularity of another kind.
    trending.npy, repeat_rate.npy, repeat_days.npy: (items,) float32 >= 0, see
        `index_builder.behaviour.repurchase_rates`; older builds lack them.
    first_day.npy: (items,) float32, day of an item's first interaction since 1970, 0 if it has
        none; only if a ranker reads it.
    ranker_no_repeats.txt, ranker_repeats.txt: trees in LightGBM's text format, if there are any.
    factors.npy, factors.gram.npy: `ItemFactors`; factors.options.npy: (2,) float64, its
        regularisation and alpha.
    users.arrow: id string, ascending.
    histories.starts.npy, .items.npy, .time_us.npy, .weight.npy: `UserHistories`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from retrieval.index.sorted_ids import SortedIds

FOLDER = "behaviour"
ITEMS_FILE = "items.arrow"
USERS_FILE = "users.arrow"
# Tables that every snapshot has, even if its blends do not read them.
POPULARITY, FACTORS, SESSIONS = "popularity", "factors", "session"
HISTORIES = "histories"
# Continues the lists of sessions that are short; scores have any sign.
TAIL_LISTS = "beyond"
# For each item: popularity decayed within days; share of its users who had the item again, 0..1;
# median days until they did, 0 if unknown.
TRENDING, REPEAT_RATE, REPEAT_DAYS = "trending", "repeat_rate", "repeat_days"
ITEM_STATISTICS = (TRENDING, REPEAT_RATE, REPEAT_DAYS)
_POPULARITY_MODELS = ("popular", "buy_again")
_FACTOR_MODEL = "als"
_NAME = re.compile(r"[a-z0-9_]{1,64}")
_REMEDY = "rebuild the snapshot with its interactions"


class BehaviourTables(NamedTuple):
    """The behaviour tables of a snapshot.

    ids: By number, ascending. interactions: (items,) int64, training data; 0 if untrained.
    popularity: By name, (items,) float32 each, including `ITEM_STATISTICS` unless the build is too
        old. lists: By name.
    rankers: Trees in LightGBM's text format, by whether items that the user had may be shown again;
        empty without rankers.
    """

    ids: Sequence[str]
    interactions: NDArray[np.int64]
    popularity: Mapping[str, NDArray[np.float32]]
    lists: Mapping[str, ItemLists]
    factors: ItemFactors
    histories: UserHistories
    rankers: Mapping[bool, str] = MappingProxyType({})


class RequiredTables(NamedTuple):
    """Names of the tables that blends read, and of those that every snapshot has."""

    popularity: frozenset[str]
    lists: frozenset[str]


def required_tables(card: snapshot_pb2.BehaviourCard) -> RequiredTables:
    """Returns the names of the tables that a card requires."""
    popularity, lists = {POPULARITY, card.popularity_table or POPULARITY}, {SESSIONS}
    parts = [part for blend in card.blends for part in blend.parts]
    for blend in card.blends:
        if blend.ranker.kept:
            parts += blend.ranker.sources
            popularity |= {*ITEM_TABLES}
    for part in parts:
        if part.model in _POPULARITY_MODELS:
            popularity.add(part.table)
        elif part.model != _FACTOR_MODEL:
            lists.add(part.table)
    return RequiredTables(frozenset(popularity), frozenset(lists))


def ranker_file(*, repeats: bool) -> str:
    """Returns the file name of a ranker's trees."""
    return f"ranker_{'repeats' if repeats else 'no_repeats'}.txt"


def read_tables(store: Store, manifest: snapshot_pb2.Manifest) -> BehaviourTables:
    """Reads the tables of a snapshot that has a behaviour card; arrays are memory-mapped.

    Raises: SnapshotCorrupt: a file does not match the manifest or the other files.
    """
    store.fetch(manifest.collection, manifest.snapshot_id, [f"{FOLDER}/"])
    folder = store.snapshot_folder(manifest.collection, manifest.snapshot_id) / FOLDER
    wanted = required_tables(manifest.behaviour)
    for name in sorted(wanted.popularity | wanted.lists):
        # A manifest is untrusted input: no name in it may lead out of the folder.
        if not _NAME.fullmatch(name):
            raise SnapshotCorrupt(
                f"the manifest of {manifest.snapshot_id} names a table {name!r}; 1..64 of a-z 0-9 "
                f"_ are allowed; {_REMEDY}"
            )
    ids, interactions, popularity = _columns(
        folder / ITEMS_FILE, {"id": "string", "interactions": "int64", POPULARITY: "float32"}
    )
    count = len(ids)
    written = {one.path for one in manifest.files}
    lists = wanted.lists | (
        {TAIL_LISTS} if f"{FOLDER}/{TAIL_LISTS}.starts.npy" in written else set()
    )
    present = {one for one in ITEM_STATISTICS if f"{FOLDER}/{one}.npy" in written}
    arrays = {
        name: _array(folder / f"{name}.npy", np.float32, (count,))
        for name in sorted((wanted.popularity | present) - {POPULARITY})
    }
    for name in sorted(present):
        _check_range(folder / f"{name}.npy", arrays[name], 1 if name == REPEAT_RATE else np.inf)
    return BehaviourTables(
        ids.to_pylist(),
        interactions.to_numpy(),
        {POPULARITY: popularity.to_numpy(), **arrays},
        {name: _lists(folder, name, count) for name in sorted(lists)},
        _factors(folder, count),
        _histories(folder, count),
        {
            one.repeats: _text(folder / ranker_file(repeats=one.repeats))
            for one in manifest.behaviour.blends
            if one.ranker.kept
        },
    )


def _lists(folder: Path, name: str, items: int) -> ItemLists:
    starts_path = folder / f"{name}.starts.npy"
    starts = _starts(starts_path, items)
    size = int(starts[-1])
    others_path = folder / f"{name}.others.npy"
    others = _array(others_path, np.int32, (size,))
    _check_numbers(others_path, others, items)
    return ItemLists(starts, others, _array(folder / f"{name}.scores.npy", np.float32, (size,)))


def _factors(folder: Path, items: int) -> ItemFactors:
    path = folder / f"{FACTORS}.npy"
    vectors = _array(path, np.float32, (items, None))
    width = vectors.shape[1]
    gram = _array(folder / f"{FACTORS}.gram.npy", np.float64, (width, width))
    regularisation, alpha = _array(folder / f"{FACTORS}.options.npy", np.float64, (2,)).tolist()
    return ItemFactors(vectors, gram, regularisation, alpha)


def _histories(folder: Path, items: int) -> UserHistories:
    (users,) = _columns(folder / USERS_FILE, {"id": "string"})
    starts = _starts(folder / f"{HISTORIES}.starts.npy", len(users))
    size = int(starts[-1])
    numbers_path = folder / f"{HISTORIES}.items.npy"
    numbers = _array(numbers_path, np.int32, (size,))
    _check_numbers(numbers_path, numbers, items)
    return UserHistories(
        SortedIds(users),
        starts,
        numbers,
        _array(folder / f"{HISTORIES}.time_us.npy", np.int64, (size,)),
        _array(folder / f"{HISTORIES}.weight.npy", np.float32, (size,)),
    )


def _columns(path: Path, kinds: Mapping[str, str]) -> list[Any]:
    # Imported late: a router whose snapshots have no interactions needs no pyarrow.
    import pyarrow as pa

    try:
        # Read instead of mapped, since ids are looked up all the time.
        with pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            table.validate(full=True)
            columns = [table.column(name).cast(kind) for name, kind in kinds.items()]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {_REMEDY}") from error
    return [
        pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
        for column, kind in zip(columns, kinds.values(), strict=True)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {_REMEDY}") from error


def _array(path: Path, kind: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    try:
        # A plain view: slicing a memmap costs more than using the slice.
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {_REMEDY}") from error
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if array.dtype != kind or not fits:
        raise SnapshotCorrupt(
            f"{path} holds {array.dtype} of shape {array.shape}; {np.dtype(kind)} of shape "
            f"{tuple('any' if one is None else one for one in shape)} is required; {_REMEDY}"
        )
    return array


def _starts(path: Path, count: int) -> NDArray[np.int64]:
    starts = _array(path, np.int64, (count + 1,))
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise SnapshotCorrupt(f"{path} does not ascend from 0; {_REMEDY}")
    return starts


def _check_range(path: Path, values: NDArray[np.float32], most: float) -> None:
    if not (np.isfinite(values) & (values >= 0) & (values <= most)).all():
        raise SnapshotCorrupt(
            f"{path} has values from {values.min()} to {values.max()}; finite values of 0..{most} "
            f"are allowed; {_REMEDY}"
        )


def _check_numbers(path: Path, numbers: NDArray[np.int32], items: int) -> None:
    if len(numbers) and not (0 <= numbers.min() and numbers.max() < items):
        raise SnapshotCorrupt(
            f"{path} has item numbers {numbers.min()} to {numbers.max()}, but there are {items} "
            f"items; {_REMEDY}"
        )
