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
from retrieval.behaviour.tables import (
    FACTORS,
    FOLDER,
    HISTORIES,
    ITEMS_FILE,
    POPULARITY,
    USERS_FILE,
    BehaviourTables,
    ranker_file,
)


def write_tables(tables: BehaviourTables, snapshot: Path) -> None:
    """Writes the folder `behaviour` of a snapshot, durably.

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
        users = pa.array(list(tables.histories.users), pa.string())
        _write_columns(folder / USERS_FILE, {"id": users})
        for name, array in _arrays(tables).items():
            with (folder / f"{name}.npy").open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
        for repeats, text in tables.rankers.items():
            write_durably(folder / ranker_file(repeats=repeats), text.encode())
        sync_folder(folder)


def _arrays(tables: BehaviourTables) -> Mapping[str, NDArray[Any]]:
    factors, histories = tables.factors, tables.histories
    arrays: dict[str, NDArray[Any]] = {
        FACTORS: factors.vectors,
        f"{FACTORS}.gram": factors.gram,
        f"{FACTORS}.options": np.array([factors.regularisation, factors.alpha]),
        f"{HISTORIES}.starts": histories.starts,
        f"{HISTORIES}.items": histories.items,
        f"{HISTORIES}.time_us": histories.time_us,
        f"{HISTORIES}.weight": histories.weight,
    }
    arrays |= {name: one for name, one in tables.popularity.items() if name != POPULARITY}
    for name, lists in tables.lists.items():
        arrays |= {f"{name}.{part}": array for part, array in lists._asdict().items()}
    return arrays


def _write_columns(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    table = pa.table(columns)
    with path.open("wb") as stream:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
        stream.flush()
        os.fsync(stream.fileno())
