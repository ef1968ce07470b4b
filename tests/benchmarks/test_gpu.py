"""Tests of `python -m benchmarks.gpu`, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_parts.figures import Figure
from benchmarks.gpu_parts.session import Session
from nearline_cli.local.gpu_probe import GpuProbe

_FLAT = [
    "queries over gRPC",
    "recall@10",
    "queries over gRPC, exact: true",
    "recall@10, exact: true",
    "the device alone: candidates",
    "the device alone: proven results",
    "the device alone: recall@10",
    "FAISS GpuIndexFlat fp16, as a peer",
]
_BUILD = [
    "HNSW32 on the CPU",
    "HNSW32 on the CPU, recall@10 at ef 64",
    "HNSW32 by CAGRA",
    "HNSW32 by CAGRA, times the CPU",
    "HNSW32 by CAGRA, recall@10 at ef 64",
]


@pytest.mark.long
@pytest.mark.service
@pytest.mark.timeout(300)
def test_a_rehearsal_measures_and_prints_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    words = ["--rehearse", "--part", "flat-large", "--part", "build", "--out", str(out)]
    assert gpu.main([*words, "--folder", str(tmp_path)]) == 0
    printed, noted = capsys.readouterr()
    record = json.loads(out.read_text())
    figures = {part: found["figures"] for part, found in record.items()}
    assert [one["name"] for one in figures["flat-large"]] == _FLAT
    assert [one["name"] for one in figures["build"]] == _BUILD
    for one in (*figures["flat-large"], *figures["build"]):
        assert one["name"] in printed
        if one["bar"] == 1.0:
            assert one["value"] == 1.0, one
    assert "rehearsal, not a GPU" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert "flat-large ..." in noted
    # What is in the file is printed, and not measured again.
    assert gpu.main(words) == 0
    again, noted = capsys.readouterr()
    assert again == printed and "..." not in noted


def test_without_a_gpu_the_command_names_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "free_bytes", lambda: ())
    assert gpu.main([]) == 1
    printed, noted = capsys.readouterr()
    assert not printed
    assert "nearline doctor" in noted and "--rehearse" in noted


def test_a_card_without_known_limits_needs_figures_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "free_bytes", lambda: (1 << 30,))
    monkeypatch.setattr(gpu, "probe_gpus", GpuProbe)
    monkeypatch.setattr(gpu, "PARTS", {})
    assert gpu.main([]) == 1
    assert "--gpu" in capsys.readouterr().err
    assert gpu.main(["--bandwidth", "1T", "--flops", "100T"]) == 0
    assert gpu.main(["--gpu", "l4"]) == 0


def test_a_part_that_fails_keeps_the_others_and_is_measured_next_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    async def good(session: Session) -> list[Figure]:
        calls.append("good")
        return [Figure(name="speed", value=2.0, bar=1.0)]

    async def bad(session: Session) -> list[Figure]:
        calls.append("bad")
        raise OSError("no space")

    monkeypatch.setattr(gpu, "PARTS", {"bad": bad, "good": good})
    words = ["--rehearse", "--out", str(tmp_path / "gpu.json")]
    assert gpu.main(words) == 1
    printed, noted = capsys.readouterr()
    assert "speed" in printed and "bad failed: OSError: no space" in noted
    assert gpu.main(words) == 1
    assert calls == ["bad", "good", "bad"]
    assert gpu.main([*words, "--again", "--part", "good"]) == 0
    assert calls[3:] == ["good"]


@pytest.mark.parametrize("content", ["[]", "{", '{"flat": {}}', '{"flat": {"figures": [{}]}}'])
def test_a_file_without_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    out = tmp_path / "other.json"
    out.write_text(content)
    assert gpu.main(["--rehearse", "--out", str(out)]) == 1
    assert "name another file" in capsys.readouterr().err
    assert out.read_text() == content
