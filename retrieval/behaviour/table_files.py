"""Reads the files of behaviour tables, and rejects those that do not fit together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt
from retrieval.behaviour.factors import ItemFactors
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_keys import ItemKeys
from retrieval.behaviour.item_lists import ItemLists
from retrieval.index.sorted_ids import SortedIds

ITEMS_FILE = "items.arrow"
USERS_FILE = "users.arrow"
FACTORS = "factors"
HISTORIES = "histories"
# Item numbers of a shard; keys of all items, and their numbers.
NUMBERS = "numbers"
KEYS, KEY_NUMBERS = "keys", "key_numbers"
REMEDY = "rebuild the snapshot with its interactions"


def read_lists(folder: Path, name: str, items: int, rows: int) -> ItemLists:
    """Reads the lists of `items` items, with entries among `rows` items; mapped."""
    starts_path = folder / f"{name}.starts.npy"
    starts = _starts(starts_path, items)
    size = int(starts[-1])
    others_path = folder / f"{name}.others.npy"
    others = read_array(others_path, np.int32, (size,))
    check_numbers(others_path, others, rows)
    return ItemLists(starts, others, read_array(folder / f"{name}.scores.npy", np.float32, (size,)))


def read_factors(folder: Path, items: int) -> ItemFactors:
    """Reads the factors of all items; mapped."""
    path = folder / f"{FACTORS}.npy"
    vectors = read_array(path, np.float32, (items, None))
    width = vectors.shape[1]
    gram = read_array(folder / f"{FACTORS}.gram.npy", np.float64, (width, width))
    for name, array in ((FACTORS, vectors), (f"{FACTORS}.gram", gram)):
        if not np.isfinite(array).all():
            raise SnapshotCorrupt(f"{folder / name}.npy has numbers that are not finite; {REMEDY}")
    regularisation, alpha = read_array(folder / f"{FACTORS}.options.npy", np.float64, (2,)).tolist()
    return ItemFactors(vectors, gram, regularisation, alpha)


def read_histories(folder: Path, items: int) -> UserHistories:
    """Reads histories; mapped, apart from the ids of users."""
    (users,) = read_columns(folder / USERS_FILE, {"id": "string"})
    starts = _starts(folder / f"{HISTORIES}.starts.npy", len(users))
    size = int(starts[-1])
    numbers_path = folder / f"{HISTORIES}.items.npy"
    numbers = read_array(numbers_path, np.int32, (size,))
    check_numbers(numbers_path, numbers, items)
    weight_path = folder / f"{HISTORIES}.weight.npy"
    weight = read_array(weight_path, np.float32, (size,))
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise SnapshotCorrupt(f"{weight_path} has weights that are not above 0; {REMEDY}")
    times = read_array(folder / f"{HISTORIES}.time_us.npy", np.int64, (size,))
    return UserHistories(SortedIds(users), starts, numbers, times, weight)


def read_columns(path: Path, kinds: Mapping[str, str], *, mapped: bool = False) -> list[Any]:
    """Reads columns of an Arrow file.

    Args:
        kinds: Types by name.
        mapped: Whether to map the file, instead of reading it.
    """
    # Imported late: a router whose snapshots have no interactions needs no pyarrow.
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) if mapped else pa.OSFile(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            table.validate(full=True)
            columns = [table.column(name).cast(kind) for name, kind in kinds.items()]
            if nulls := [name for name, one in zip(kinds, columns, strict=True) if one.null_count]:
                raise pa.ArrowInvalid(f"no value in some rows of {', '.join(nulls)}")
    except (pa.ArrowException, KeyError, OSError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {REMEDY}") from error
    return [_one_chunk(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)]


def _one_chunk(column: Any, kind: str) -> Any:
    import pyarrow as pa

    if column.num_chunks == 1:
        # Stays mapped if the file is.
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)


def read_text(path: Path) -> str:
    """Reads a file of UTF-8 text."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {REMEDY}") from error


def read_array(path: Path, kind: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Maps an array of a type and a shape; a length of None is any."""
    try:
        # A plain view: slicing a memmap costs more than using the slice.
        array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(f"{path} cannot be read ({error}); {REMEDY}") from error
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if array.dtype != kind or not fits:
        raise SnapshotCorrupt(
            f"{path} holds {array.dtype} of shape {array.shape}; {np.dtype(kind)} of shape "
            f"{tuple('any' if one is None else one for one in shape)} is required; {REMEDY}"
        )
    return array


def _starts(path: Path, count: int) -> NDArray[np.int64]:
    starts = read_array(path, np.int64, (count + 1,))
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise SnapshotCorrupt(f"{path} does not ascend from 0; {REMEDY}")
    return starts


def check_range(path: Path, values: NDArray[np.float32], most: float) -> None:
    """Raises SnapshotCorrupt unless all values are 0..most."""
    if not (np.isfinite(values) & (values >= 0) & (values <= most)).all():
        raise SnapshotCorrupt(
            f"{path} has values from {values.min()} to {values.max()}; finite values of 0..{most} "
            f"are allowed; {REMEDY}"
        )


def check_numbers(path: Path, numbers: NDArray[np.int32], items: int) -> None:
    """Raises SnapshotCorrupt unless all numbers are below the number of items."""
    if len(numbers) and not (0 <= numbers.min() and numbers.max() < items):
        raise SnapshotCorrupt(
            f"{path} has item numbers {numbers.min()} to {numbers.max()}, but there are {items} "
            f"items; {REMEDY}"
        )


def read_keys(folder: Path, items: int) -> ItemKeys:
    """Reads the keys of all items; mapped."""
    path = folder / f"{KEY_NUMBERS}.npy"
    numbers = read_array(path, np.int32, (items,))
    check_numbers(path, numbers, items)
    keys_path = folder / f"{KEYS}.npy"
    keys = read_array(keys_path, np.uint64, (items,))
    if (keys[1:] < keys[:-1]).any() or np.bincount(numbers, minlength=items).max(initial=1) > 1:
        raise SnapshotCorrupt(
            f"{keys_path} does not ascend, or {path} has a number twice; {REMEDY}"
        )
    return ItemKeys(keys, numbers)


def read_numbers(folder: Path, items: int) -> NDArray[np.int32]:
    """Reads the item numbers of a shard, which ascend."""
    path = folder / f"{NUMBERS}.npy"
    numbers = read_array(path, np.int32, (None,))
    check_numbers(path, numbers, items)
    if (np.diff(numbers) <= 0).any():
        raise SnapshotCorrupt(f"{path} does not ascend; {REMEDY}")
    return numbers
