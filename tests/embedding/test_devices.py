"""Which devices a setting names, with builds of torch that are told what they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from embedding import devices
from embedding.devices import free_bytes, resolve_devices
from embedding.settings import EmbeddingSettings
from nearline.errors import SettingsError

CUDA = "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n"
CPU = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"


def _torch(
    folder: Path, version: str, monkeypatch: pytest.MonkeyPatch, *free: int, body: str = ""
) -> None:
    """Installs a torch whose GPUs have so much free memory."""
    (folder / "torch").mkdir()
    body = body or "raise AssertionError('imported')\n"
    (folder / "torch" / "__init__.py").write_text(body)
    (folder / "torch" / "version.py").write_text(version)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    devices._probe.cache_clear()
    if not body.startswith("class"):
        monkeypatch.setattr(devices, "_probe", lambda: free)


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [
        ("auto", ("cuda:0",)),
        ("cpu", ("cpu",)),
        ("cuda", ("cuda:0",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:1,cuda:0,cuda:1", ("cuda:1", "cuda:0")),
        ("cuda:all", ("cuda:0", "cuda:1")),
    ],
)
def test_a_setting_names_one_gpu_several_or_the_cpu(
    setting: str, chosen: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, 8 << 30, 8 << 30)
    assert resolve_devices(setting) == chosen


def test_auto_is_the_cpu_if_torch_finds_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch)
    assert resolve_devices("auto") == ("cpu",)


def test_auto_is_the_cpu_without_importing_a_torch_for_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CPU, monkeypatch, 8 << 30)
    assert resolve_devices("auto") == ("cpu",)


@pytest.mark.parametrize("setting", ["cuda", "cuda:0", "cuda:all", "cuda:0,cuda:7"])
def test_a_gpu_that_torch_cannot_use_is_refused(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CPU, monkeypatch)
    with pytest.raises(SettingsError, match=rf"device '{setting}' cannot be used: .* no GPU"):
        resolve_devices(setting)


@pytest.mark.parametrize("setting", ["gpu", "cuda:", "cuda:0;cuda:1", "cuda:-1", "cpu,cuda:0", ""])
def test_an_unknown_device_is_refused(setting: str) -> None:
    with pytest.raises(SettingsError, match=r"is unknown; use auto, cpu"):
        resolve_devices(setting)


def test_gpus_are_asked_for_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        "class cuda:\n"
        "    is_available = lambda: True\n"
        "    device_count = lambda: 2\n"
        "    mem_get_info = lambda number: ((number + 1) << 30, 8 << 30)\n"
    )
    _torch(tmp_path, CUDA, monkeypatch, body=body)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(devices.__file__).parents[1]}")
    assert free_bytes() == (1 << 30, 2 << 30)
    assert "torch" not in sys.modules
    devices._probe.cache_clear()


def test_gpus_that_cannot_be_asked_for_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, body="class Broken: pass\nraise OSError('no libcuda')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(devices.__file__).parents[1]}")
    assert resolve_devices("auto") == ("cpu",)
    devices._probe.cache_clear()


def test_openvino_stays_on_the_cpu_of_a_machine_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, 8 << 30)
    assert EmbeddingSettings(backend="openvino").devices == ("cpu",)
    assert EmbeddingSettings().devices == ("cuda:0",)
    assert EmbeddingSettings(device="cpu").devices == ("cpu",)


@pytest.mark.parametrize(
    ("free", "tokens"),
    [(80 << 30, 65_536), (6 << 30, 32_768), (1 << 30, 8_192), (32 << 20, 512), (0, 512)],
)
def test_a_batch_on_a_gpu_has_the_tokens_that_a_quarter_of_the_free_memory_holds(
    free: int, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, free, 80 << 30)
    assert EmbeddingSettings().batch_tokens == tokens
    assert EmbeddingSettings(device="cuda:all").batch_tokens == tokens
    assert EmbeddingSettings(device="cuda:1").batch_tokens == 65_536
    assert EmbeddingSettings(token_budget=96).batch_tokens == 96
    assert EmbeddingSettings(device="cpu").batch_tokens == 512


def test_a_model_on_the_cpu_of_a_machine_with_a_gpu_has_small_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, 80 << 30)
    assert EmbeddingSettings(token_budget=4096).cpu_batch_tokens == 512
    assert EmbeddingSettings(token_budget=4096, device="cpu").cpu_batch_tokens == 4096


def test_queues_hold_enough_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _torch(tmp_path, CUDA, monkeypatch, 80 << 30)
    gpu, cpu = EmbeddingSettings(), EmbeddingSettings(device="cpu")
    assert (gpu.queued_tokens, gpu.read_ahead_texts) == (32 * 65_536, 2048)
    assert (cpu.queued_tokens, cpu.read_ahead_texts) == (262_144, 256)
    given = EmbeddingSettings(max_queued_tokens=9, stream_read_ahead_texts=7)
    assert (given.queued_tokens, given.read_ahead_texts) == (9, 7)
