"""Tests of `python -m benchmarks.gpu`, without a GPU."""

from __future__ import annotations

import json

import pytest

from benchmarks import gpu


@pytest.mark.long
@pytest.mark.service
@pytest.mark.timeout(600)
def test_a_rehearsal_measures_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    status = gpu.main(["--rehearse"])
    record = json.loads(capsys.readouterr().out)
    assert status == 0, record
    assert record["device"] == "rehearsal, not a GPU"
    embedding, build, search, kill = (record[part] for part in gpu.PARTS)
    assert embedding["gpu_texts_per_s"] > 0 and embedding["ratio_to_cpu"] > 0
    assert embedding["least_cosine_to_cpu"] > 0.999
    assert build["gpu_vectors_per_s"] > 0
    assert build["gpu_recall@10"] >= build["cpu_recall@10"] - 0.01 > 0.9
    assert search["gpu_recall@10"] == 1.0 and search["cpu_recall@10"] > 0.9
    assert search["ratio_to_cpu"] > 0 and search["by_the_cpu_instead"] == 0
    assert kill["failed"] == 0 and kill["by_the_cpu_instead"] > 0
    assert "signal 9" in kill["reason"] and kill["gpu_back_after_s"] > 0


def test_without_a_gpu_the_command_names_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "free_bytes", lambda: ())
    assert gpu.main([]) == 1
    printed, noted = capsys.readouterr()
    assert not printed
    assert "nearline doctor" in noted and "--rehearse" in noted


def test_a_part_that_fails_keeps_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def good(bench: gpu.Bench) -> dict[str, object]:
        return {"speed": 2.0}

    async def bad(bench: gpu.Bench) -> dict[str, object]:
        raise OSError("no space")

    monkeypatch.setattr(gpu, "PARTS", {"bad": bad, "good": good})
    assert gpu.main(["--rehearse"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["bad"] == {"error": "OSError: no space"} and record["good"] == {"speed": 2.0}
