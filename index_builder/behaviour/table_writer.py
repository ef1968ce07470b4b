"""Writes the behaviour tables of a snapshot; `retrieval.behaviour.tables` defines their format."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.store.durable import store_errors, sync_folder, write_durably
from retrieval.behaviour.history import UserHistories
from retrieval.behaviour.item_keys import ItemKeys
from retrieval.behaviour.sequences import sequence_arrays
from retrieval.behaviour.table_division import divide_histories, divide_lists, owners_of
from retrieval.behaviour.table_files import (
    FACTORS,
    HISTORIES,
    ITEMS_FILE,
    KEY_NUMBERS,
    KEYS,
    NUMBERS,
    USERS_FILE,
)
from retrieval.behaviour.tables import (
    FOLDER,
    POPULARITY,
    BehaviourTables,
    ranker_file,
    tables_folder,
)


def write_tables(tables: BehaviourTables, snapshot: Path, shards: int = 1) -> None:
    """Writes the folder `behaviour` of a snapshot, durably.

    Args:
        shards: Shards that lists and histories are divided among.
    Raises: StoreError: there is no space or no permission.
    """
    folder = snapshot / FOLDER
    with store_errors(folder):
        folder.mkdir()
        columns = {
            "id": pa.array(tables.ids, pa.string()),
            "interactions": pa.array(tables.interactions, pa.int64()),
            POPULARITY: pa.array(tables.popularity[POPULARITY], pa.float32()),
        }
        _write_columns(folder / ITEMS_FILE, columns)
        _write_arrays(folder, _item_arrays(tables))
        for repeats, text in tables.rankers.items():
            write_durably(folder / ranker_file(repeats=repeats), text.encode())
        owners = owners_of(tables.ids, shards)
        user_owners = owners_of(tables.histories.users, shards)
        for shard in range(shards):
            part = snapshot / tables_folder(shard)
            part.mkdir()
            numbers = np.flatnonzero(owners == shard).astype(np.int32)
            histories = divide_histories(tables.histories, user_owners == shard)
            users = pa.array(list(histories.users), pa.string())
            _write_columns(part / USERS_FILE, {"id": users})
            _write_arrays(part, _shard_arrays(numbers, histories))
            for name, lists in tables.lists.items():
                divided = divide_lists(lists, numbers)._asdict()
                _write_arrays(part, {f"{name}.{of}": array for of, array in divided.items()})
            sync_folder(part)
        sync_folder(folder)


def _item_arrays(tables: BehaviourTables) -> Mapping[str, NDArray[Any]]:
    factors, keys = tables.factors, ItemKeys.of(tables.ids)
    return {
        KEYS: keys.keys,
        KEY_NUMBERS: keys.numbers,
        FACTORS: factors.vectors,
        f"{FACTORS}.gram": factors.gram,
        f"{FACTORS}.options": np.array([factors.regularisation, factors.alpha]),
        **({} if tables.sequences is None else sequence_arrays(tables.sequences)),
        **{name: one for name, one in tables.popularity.items() if name != POPULARITY},
    }


def _shard_arrays(
    numbers: NDArray[np.int32], histories: UserHistories
) -> Mapping[str, NDArray[Any]]:
    return {
        NUMBERS: numbers,
        f"{HISTORIES}.starts": histories.starts,
        f"{HISTORIES}.items": histories.items,
        f"{HISTORIES}.time_us": histories.time_us,
        f"{HISTORIES}.weight": histories.weight,
    }


def _write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())


def _write_columns(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    table = pa.table(columns)
    with path.open("wb") as stream:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
        stream.flush()
        os.fsync(stream.fileno())
