"""Indexes are chosen by size, built as requested and written whole."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index_builder.indexes.faiss_writer import (
    SearchDefaults,
    build_index,
    check_factory,
    choose_factory,
    search_index,
    write_index,
)
from index_builder.options.build_options import IndexOptions
from nearline.errors import InvalidRequest


def _ignore(count: int) -> None:
    assert count > 0


@pytest.fixture
def vectors(rng: np.random.Generator) -> NDArray[np.float32]:
    return rng.integers(-9, 9, (600, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "factory"), [(1, "Flat"), (20_000, "Flat"), (20_001, "HNSW32,Flat")]
)
def test_auto_chooses_by_the_size_of_the_collection(count: int, factory: str) -> None:
    assert choose_factory(IndexOptions(), count) == factory
    assert choose_factory(IndexOptions(factory="SQ8"), count) == "SQ8"


def test_positions_follow_the_requested_rows(vectors: NDArray[np.float32]) -> None:
    rows = np.array([5, 3, 599, 0])
    index, defaults = build_index(
        "Flat", vectors, rows, IndexOptions(), shard=0, seed=0, advance=_ignore
    )
    places, scores = search_index(index, vectors[:20], 4, defaults)
    products = vectors[:20] @ vectors[rows].T
    assert np.array_equal(scores, -np.sort(-products, axis=1))
    assert np.array_equal(np.take_along_axis(products, places, axis=1), scores)


@pytest.mark.parametrize(
    ("factory", "options", "defaults"),
    [
        ("Flat", IndexOptions(), (0, 0)),
        ("HNSW32,Flat", IndexOptions(), (64, 0)),
        ("HNSW8,SQ8", IndexOptions(ef_search=99), (99, 0)),
        ("IVF4,Flat", IndexOptions(), (0, 4)),
        ("PCA8,IVF4,SQ8", IndexOptions(nprobe=3), (0, 3)),
        ("IVF2,PQ2x2,Refine(SQ8)", IndexOptions(nprobe=1, threads=1), (0, 1)),
    ],
)
def test_search_widths_depend_on_the_index_type(
    vectors: NDArray[np.float32],
    factory: str,
    options: IndexOptions,
    defaults: tuple[int, int],
) -> None:
    index, found = build_index(
        factory, vectors, np.arange(600), options, shard=0, seed=0, advance=_ignore
    )
    assert found == SearchDefaults(*defaults)
    assert search_index(index, vectors[:3], 5, found)[0].shape == (3, 5)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda v: check_factory("IVF601,Flat", 16, [600]), "at least 601 .* shard 0 has 600"),
        (lambda v: check_factory("Nothing", 16, [600]), "'Nothing' cannot be built for dim 16"),
        (lambda v: check_factory("", 16, [600]), "index factory '' cannot be built"),
        (lambda v: _build("PQ4x10", v), "cannot be trained on the 600 vectors of shard 3"),
        (lambda v: _build("IDMap,Flat", v), "IDMap is not needed"),
    ],
)
def test_a_factory_that_cannot_work_is_refused_by_name(
    vectors: NDArray[np.float32], work: Callable[[NDArray[np.float32]], object], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        work(vectors)


def _build(factory: str, vectors: NDArray[np.float32]) -> object:
    return build_index(
        factory, vectors, np.arange(600), IndexOptions(), shard=3, seed=0, advance=_ignore
    )


def test_an_empty_shard_has_an_empty_index(vectors: NDArray[np.float32], tmp_path: Path) -> None:
    nothing = np.empty(0, np.int64)
    for factory in ("Flat", "HNSW32,Flat", "IVF4,Flat"):
        index, _ = build_index(
            factory, vectors, nothing, IndexOptions(), shard=0, seed=0, advance=_ignore
        )
        write_index(index, tmp_path / "dense.faiss")
        assert [path.name for path in tmp_path.iterdir()] == ["dense.faiss"]


def test_an_unwritable_folder_raises_the_error_of_the_system(
    vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    index, _ = build_index(
        "Flat", vectors, np.arange(3), IndexOptions(), shard=0, seed=0, advance=_ignore
    )
    with pytest.raises(FileNotFoundError):
        write_index(index, tmp_path / "missing" / "dense.faiss")


@pytest.mark.parametrize("missing", [1, 5_000])
def test_an_index_that_lacks_its_last_bytes_is_an_error_and_leaves_no_file(
    vectors: NDArray[np.float32], tmp_path: Path, missing: int
) -> None:
    index, _ = build_index(
        "Flat", vectors, np.arange(600), IndexOptions(), shard=0, seed=0, advance=_ignore
    )
    write_index(index, tmp_path / "whole.faiss")
    size = (tmp_path / "whole.faiss").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_index(index, tmp_path / "dense.faiss")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.faiss"]
