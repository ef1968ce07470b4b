"""The index is chosen by measurements on a sample of the vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from index_builder.indexes.faiss_writer import build_index, expected_bytes, write_index
from index_builder.indexes.index_trials import apply_choice, choose_index
from index_builder.options.build_options import BuildOptions, IndexOptions
from index_builder.options.index_selection import (
    IndexCandidate,
    IndexChoice,
    IndexTrial,
    choose_trial,
    factories,
    frontier,
    ivf_lists,
    parse_bytes,
)
from index_builder.pipeline.builder import build_snapshot
from nearline.contract import Item
from nearline.errors import InvalidRequest
from nearline_cli.views.build_summary import index_rows

TRIALS = st.lists(
    st.builds(
        lambda recall, latency, size: IndexTrial(
            candidate=IndexCandidate(factory="Flat"),
            recall=recall / 10,
            latency_us=float(latency),
            bytes=size,
        ),
        # Few values, so that many are equal.
        st.integers(0, 10),
        st.integers(1, 6),
        st.integers(1, 6),
    ),
    min_size=1,
    max_size=20,
)


def trial(factory: str, recall: float, latency_us: float, mib: int, ef: int = 0) -> IndexTrial:
    candidate = IndexCandidate(factory=factory, ef_search=ef)
    return IndexTrial(candidate=candidate, recall=recall, latency_us=latency_us, bytes=mib << 20)


@pytest.fixture
def clustered(rng: np.random.Generator) -> NDArray[np.float32]:
    centres = rng.normal(size=(40, 32))
    points = centres[rng.integers(0, 40, 2_000)] + 0.5 * rng.normal(size=(2_000, 32))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32)


@given(TRIALS, st.integers(0, 10), st.integers(0, 6))
def test_the_choice_is_on_the_frontier_and_within_the_limits(
    trials: list[IndexTrial], target: int, limit: int
) -> None:
    fitting = [t for t in trials if t.recall >= target / 10 and (not limit or t.bytes <= limit)]
    if not fitting:
        with pytest.raises(InvalidRequest, match="nearest"):
            choose_trial(trials, target / 10, limit)
        return
    chosen = choose_trial(trials, target / 10, limit)
    assert chosen in fitting
    assert chosen in frontier(trials)
    assert chosen.latency_us == min(t.latency_us for t in fitting)


@given(TRIALS)
def test_every_trial_off_the_frontier_is_beaten_by_one_on_it(trials: list[IndexTrial]) -> None:
    best = frontier(trials)
    assert best
    for one in trials:
        assert one in best or any(
            b.recall >= one.recall and b.latency_us <= one.latency_us and b.bytes <= one.bytes
            for b in best
        )


def test_without_a_fit_the_error_names_the_nearest_trials() -> None:
    trials = [trial("HNSW32,Flat", 0.99, 100, 80, 64), trial("IVF64,SQ4", 0.9, 300, 10)]
    with pytest.raises(InvalidRequest) as caught:
        choose_trial(trials, 0.97, 50 << 20)
    assert "IVF64,SQ4 reaches recall 0.900 in 10.0 MiB" in str(caught.value)
    assert "HNSW32,Flat ef 64 needs 80.0 MiB for recall 0.990" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("500M", 500 << 20),
        ("1.5g", 3 << 29),
        ("77", 77),
        ("1 kb", 1024),
        ("", 0),
    ],
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "-1G", "0", "2 GiBs"])
def test_a_malformed_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="such as 2GiB"):
        parse_bytes(text)


def test_lists_grow_with_the_root_and_can_always_be_trained() -> None:
    assert [ivf_lists(n) for n in (1, 1_000, 100_000, 1_000_000)] == [1, 16, 1024, 4096]
    assert all(ivf_lists(n) * 39 <= n for n in range(39, 5_000, 7))


@pytest.mark.parametrize("factory", factories(16))
def test_memory_is_predicted_within_a_few_percent(
    clustered: NDArray[np.float32], tmp_path: Path, factory: str
) -> None:
    def built(rows: int) -> object:
        return build_index(
            factory, clustered, np.arange(rows), IndexOptions(ef_construction=40), shard=0, seed=0,
            advance=lambda added: None,
        )[0]  # fmt: skip

    foreseen = expected_bytes(built(1_000), 2_000)
    write_index(built(2_000), tmp_path / "dense.faiss")
    assert foreseen == pytest.approx((tmp_path / "dense.faiss").stat().st_size, rel=0.05)


def test_measuring_chooses_an_index_for_each_limit(clustered: NDArray[np.float32]) -> None:
    options = IndexOptions(target_recall=0.95, ef_construction=40, nprobe=3)
    fast = choose_index(clustered, options, 1, 0)
    assert fast.chosen.recall >= 0.95
    assert fast.sample == len(clustered) * 9 // 10
    assert len({trial.candidate.factory for trial in fast.trials}) == len(factories(1))
    small = choose_trial(fast.trials, 0.8, clustered.nbytes * 2 // 3)
    assert small.recall >= 0.8
    assert small.bytes <= clustered.nbytes * 2 // 3
    built = apply_choice(options, fast)
    assert built.factory == fast.chosen.candidate.factory
    assert built.nprobe == fast.chosen.candidate.nprobe


async def test_a_build_uses_the_chosen_index_and_reports_the_frontier(
    clustered: NDArray[np.float32], tmp_path: Path
) -> None:
    documents = (Item(id=str(n), vector=row) for n, row in enumerate(clustered))
    index = IndexOptions(target_recall=0.9, ef_construction=40)
    result = await build_snapshot(
        documents, BuildOptions(store=str(tmp_path), collection="c", index=index)
    )
    assert result.choice is not None
    assert result.index_factory == result.choice.chosen.candidate.factory
    assert result.recall_at_10 >= 0.85
    report = json.loads((result.folder / "golden" / "report.json").read_text())
    assert report["choice"] == json.loads(json.dumps(result.choice.record()))


def test_the_table_marks_the_choice_and_omits_beaten_and_poor_trials() -> None:
    trials = [
        trial("Flat", 1.0, 900, 10),
        trial("HNSW32,Flat", 0.99, 100, 12, 64),
        trial("HNSW16,Flat", 0.98, 110, 13, 64),
        trial("IVF64,PQ48x4fs", 0.8, 10, 1),
    ]
    choice = IndexChoice(
        chosen=trials[1], trials=trials, target_recall=0.97, max_bytes=0, sample=5, seconds=1.0
    )
    assert index_rows(choice) == [
        ("Flat", "1.0000", "900 µs", "10.0 MiB"),
        ("HNSW32, Flat, ef 64 (chosen)", "0.9900", "100 µs", "12.0 MiB"),
    ]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (IndexOptions(factory="Flat", target_recall=0.9), "nothing to choose"),
        (IndexOptions(target_recall=1.5), "target_recall is 1.5"),
        (IndexOptions(refine_factor=-1), "refine_factor is -1"),
    ],
)
def test_invalid_targets_are_refused(index: IndexOptions, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        BuildOptions(store="s", index=index).check()
