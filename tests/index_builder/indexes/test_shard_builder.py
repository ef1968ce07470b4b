"""Indexes are built by a process with a GPU, or on the CPU with the reason; both serve alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from index_builder.execution.build_device import CPU_DEVICE, BuildDevice
from index_builder.indexes import faiss_writer, golden_sample, shard_builder
from index_builder.indexes.exact_search import ExactResults, scan, shard_recall
from index_builder.indexes.faiss_writer import SearchDefaults
from index_builder.indexes.shard_builder import build_shard, find_device
from index_builder.options.build_options import IndexOptions
from index_builder.releases.thresholds import GateLimits
from nearline.errors import InvalidRequest
from nearline.vectors import normalise
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.index.vectors.vector_index import SearchParams
from tests.index_builder import gpu_stand_in

# The stubs of faiss 1.15 lack most of its classes.
_faiss: Any = faiss
pytestmark = pytest.mark.service
ROWS, DIM = 2_500, 16
OPTIONS = IndexOptions(ef_construction=40, threads=1)
GRAPH, LISTS = "HNSW16,Flat", "IVF32,SQ8"


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """Returns vectors of unit length, mapped from a file as those of a build are."""
    path = tmp_path_factory.mktemp("vectors") / "vectors.f32"
    made = np.random.default_rng(5).standard_normal((ROWS, DIM)).astype(np.float32)
    normalise(made).tofile(path)
    return np.memmap(path, np.float32, "r", shape=(ROWS, DIM))


@pytest.fixture(scope="module")
def exact(vectors: NDArray[np.float32]) -> ExactResults:
    chosen = golden_sample.sample_rows(ROWS, 50, 1)
    return scan(vectors, golden_sample.mixtures(vectors, chosen, 1, unit=True), 10)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> BuildDevice:
    gpu_stand_in.pretend(monkeypatch)
    return BuildDevice(number=0)


def _build(
    factory: str,
    vectors: NDArray[np.float32],
    exact: ExactResults,
    target: Path,
    device: BuildDevice,
    rows: NDArray[np.int64] | None = None,
) -> tuple[object, SearchDefaults]:
    done: list[int] = []
    rows = np.arange(len(vectors)) if rows is None else rows
    index, defaults = build_shard(
        factory,
        vectors,
        rows,
        OPTIONS,
        exact,
        target,
        shard=3,
        seed=0,
        advance=done.append,
        device=device,
    )
    assert sum(done) == len(rows)
    return index, defaults


@pytest.mark.parametrize(
    "factory", [LISTS, "PCA8,IVF32,Flat", "IVF32_HNSW8,SQ8", "IVF32,PQ4x4,RFlat"]
)
def test_lists_trained_by_the_worker_are_those_of_the_cpu_to_the_byte(
    factory: str,
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
) -> None:
    # The stand-in's k-means is that of the CPU, so all else must be, too.
    _build(factory, vectors, exact, tmp_path / "gpu.faiss", gpu)
    _build(factory, vectors, exact, tmp_path / "cpu.faiss", CPU_DEVICE)
    assert gpu.notes == []
    assert (tmp_path / "gpu.faiss").read_bytes() == (tmp_path / "cpu.faiss").read_bytes()


@pytest.mark.parametrize("factory", [GRAPH, "HNSW16,SQfp16", "HNSW16,SQbf16"])
def test_a_graph_of_the_worker_is_served_as_one_of_the_cpu(
    factory: str,
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(2).permutation(ROWS)[:2_000]
    target = tmp_path / "dense.faiss"
    index, defaults = _build(factory, vectors, exact, target, gpu, rows)
    assert gpu.notes == []
    assert defaults == (OPTIONS.ef_search, 0)
    other, _ = _build(factory, vectors, exact, tmp_path / "cpu.faiss", CPU_DEVICE, rows)
    assert type(index) is type(other)
    served = FaissIndex.load(target, factory, dim=DIM, rows=len(rows), ef_search=64)
    assert served.describe().knobs == {"ef_search", "exact"}
    near = served.search(exact.queries, 10)
    assert shard_recall(exact, vectors, rows, near.ids) >= 0.95
    again = served.search(exact.queries, 10)
    assert np.array_equal(near.ids, again.ids) and np.array_equal(near.scores, again.scores)
    own = scan(np.ascontiguousarray(vectors[rows]), exact.queries, 10)
    wholly = served.search(exact.queries, 10, SearchParams(exact=True))
    assert np.mean(wholly.ids == own.rows) > 0.95
    allow = np.packbits(np.arange(len(rows)) % 2 == 0, bitorder="little")
    assert (served.search(exact.queries, 5, allow=allow).ids % 2 == 0).all()


@pytest.mark.parametrize("base_level_only", [False, True])
def test_cagra_as_faiss_writes_it_is_served_too(
    vectors: NDArray[np.float32], exact: ExactResults, tmp_path: Path, *, base_level_only: bool
) -> None:
    index = _faiss.IndexHNSWCagra(DIM, 16, faiss.METRIC_INNER_PRODUCT)
    index.add(np.asarray(vectors))
    index.base_level_only = base_level_only
    faiss.write_index(index, str(tmp_path / "dense.faiss"))
    served = FaissIndex.load(tmp_path / "dense.faiss", "HNSW16,Flat", dim=DIM, rows=ROWS)
    assert served.describe().knobs == {"ef_search", "exact"}
    assert served.describe().kind == "IndexHNSWCagra"
    near = served.search(exact.queries, 10)
    assert shard_recall(exact, vectors, np.arange(ROWS), near.ids) >= 0.95
    wholly = served.search(exact.queries, 10, SearchParams(exact=True))
    assert np.array_equal(np.sort(wholly.ids), np.sort(exact.rows))


@pytest.mark.parametrize(
    ("behaviour", "factory", "reason"),
    [
        ("killed", GRAPH, "its process was ended by signal 9 (SIGKILL)"),
        ("full", GRAPH, "it needs 2.0 GiB of GPU memory, 0.0 GiB are free"),
        ("full", LISTS, "it needs 2.0 GiB of GPU memory, 0.0 GiB are free"),
        ("unallocated", GRAPH, "RuntimeError: StandardGpuResources: alloc fail type FlatData"),
        ("poor", GRAPH, "its graph has recall@10 0."),
        ("hangs", GRAPH, "it did not answer within 2.25 s"),
        ("silent", GRAPH, "its index cannot be read"),
    ],
)
def test_what_fails_on_the_gpu_is_built_on_the_cpu_with_the_reason(
    behaviour: str,
    factory: str,
    reason: str,
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(gpu_stand_in.BEHAVIOUR, behaviour)
    if behaviour == "hangs":
        monkeypatch.setattr(shard_builder, "_START_S", 1.0)
    _build(factory, vectors, exact, tmp_path / "gpu.faiss", gpu)
    [note] = gpu.notes
    assert note.startswith(f"index of shard 3: built on the CPU, because {reason}")
    _build(factory, vectors, exact, tmp_path / "cpu.faiss", CPU_DEVICE)
    assert (tmp_path / "gpu.faiss").read_bytes() == (tmp_path / "cpu.faiss").read_bytes()


def test_a_graph_needs_cagra_and_queries_that_check_it(
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = scan(vectors, np.empty((0, DIM), np.float32), 10)
    _build(GRAPH, vectors, nothing, tmp_path / "dense.faiss", gpu)
    monkeypatch.setattr(faiss_writer, "HAS_CAGRA", False)
    _build(GRAPH, vectors, exact, tmp_path / "dense.faiss", gpu)
    assert ["golden_queries is 0" in gpu.notes[0], "faiss-gpu-cuvs" in gpu.notes[1]] == [True, True]


@pytest.mark.parametrize(
    "factory", ["Flat", "SQ8", "HNSW16,SQ8", "HNSW16,SQ8,RFlat", "IVF32(RCQ1x5),Flat"]
)
def test_other_indexes_ask_nothing_of_a_gpu(
    factory: str,
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_builder, "WORKER", "there.is.none")
    _build(factory, vectors, exact, tmp_path / "dense.faiss", gpu)
    assert gpu.notes == []


def test_few_vectors_are_built_on_the_cpu(
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_builder, "WORKER", "there.is.none")
    _build(GRAPH, vectors, exact, tmp_path / "dense.faiss", gpu, np.arange(999))
    assert gpu.notes == []


def test_a_cancelled_build_ends_its_worker(
    vectors: NDArray[np.float32],
    exact: ExactResults,
    gpu: BuildDevice,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cancelled(Exception):
        pass

    def cancel() -> None:
        raise Cancelled

    monkeypatch.setenv(gpu_stand_in.BEHAVIOUR, "hangs")
    device = BuildDevice(number=0, check_cancelled=cancel)
    with pytest.raises(Cancelled):
        _build(GRAPH, vectors, exact, tmp_path / "dense.faiss", device)
    # Other tests of this process may have left children of their own.
    children = [one.cmdline() for one in psutil.Process().children()]
    assert not any("tests.index_builder.gpu_stand_in" in words for words in children)


@pytest.mark.parametrize(
    ("device", "behaviour", "name"),
    [
        ("auto", "works", "cuda:0"),
        ("auto", "absent", "cpu"),
        ("auto", "aborts", "cpu"),
        ("cpu", "works", "cpu"),
        ("cuda", "works", "cuda:0"),
        ("cuda:1", "works", "cuda:1"),
    ],
)
def test_the_device_is_the_one_that_is_named_or_the_first_gpu(
    device: str,
    behaviour: str,
    name: str,
    gpu: BuildDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(gpu_stand_in.BEHAVIOUR, behaviour)
    found = find_device(device)
    assert found.name == name
    assert ["(SIGABRT)" in one for one in found.notes] == [True] * (behaviour == "aborts")


@pytest.mark.parametrize(
    ("device", "behaviour", "said"),
    [
        ("cuda:2", "works", "device is cuda:2, but CUDA shows 2 of them to this process"),
        ("cuda:0", "absent", "device is cuda:0, but CUDA shows 0 of them to this process"),
        ("cuda", "aborts", "but FAISS cannot count GPUs: its process was ended by signal 6"),
    ],
)
def test_a_named_gpu_that_is_missing_is_an_error_with_its_remedy(
    device: str, behaviour: str, said: str, gpu: BuildDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpu_stand_in.BEHAVIOUR, behaviour)
    with pytest.raises(InvalidRequest, match=f"{said}.*nearline doctor.*--device auto"):
        find_device(device)


@pytest.mark.skipif(faiss_writer.HAS_GPU_SUPPORT, reason="the installed FAISS is one for GPUs")
def test_a_wheel_for_cpus_has_no_gpu() -> None:
    assert find_device("auto").name == "cpu"
    with pytest.raises(InvalidRequest, match="device is cuda:0, but the installed FAISS is built"):
        find_device("cuda:0")


def test_a_worker_sees_only_its_gpu(gpu: BuildDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    second = BuildDevice(number=1)
    assert second._environment()["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert second._environment()["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert CPU_DEVICE._environment() == {}


def test_the_least_recall_is_that_of_the_release_gate() -> None:
    assert shard_builder.LEAST_RECALL == GateLimits().min_recall


@pytest.mark.gpu
@pytest.mark.parametrize("factory", ["IVF64,Flat", GRAPH])
def test_a_real_gpu_builds_what_the_cpu_serves(factory: str, tmp_path: Path) -> None:
    device = find_device("auto")
    if device.number is None:
        pytest.skip("no GPU that the installed FAISS can use")
    if factory == GRAPH and not faiss_writer.HAS_CAGRA:
        pytest.skip("the installed FAISS has no CAGRA: pip install faiss-gpu-cuvs")
    rng = np.random.default_rng(3)
    rows = 2 * shard_builder.LEAST_VECTORS
    normalise(rng.standard_normal((rows, 32)).astype(np.float32)).tofile(tmp_path / "v.f32")
    many = np.memmap(tmp_path / "v.f32", np.float32, "r", shape=(rows, 32))
    chosen = golden_sample.sample_rows(rows, 50, 1)
    exact = scan(many, golden_sample.mixtures(many, chosen, 1, unit=True), 10)
    options = IndexOptions(ef_search=128, nprobe=32)
    build_shard(
        factory,
        many,
        np.arange(rows),
        options,
        exact,
        tmp_path / "dense.faiss",
        shard=0,
        seed=0,
        advance=lambda added: None,
        device=device,
    )
    assert device.notes == []
    served = FaissIndex.load(
        tmp_path / "dense.faiss", factory, dim=32, rows=rows, ef_search=128, nprobe=32
    )
    found = served.search(exact.queries, 10)
    assert shard_recall(exact, many, np.arange(rows), found.ids) >= shard_builder.LEAST_RECALL
