"""Which device `--device auto` is, with builds of torch that are told what they are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from embedding.devices import resolve_device
from embedding.settings import EmbeddingSettings

CUDA = "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n"
CPU = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"


def _torch(
    folder: Path,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    usable: bool = False,
    free: int = 0,
) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise AssertionError('imported')\n")
    (folder / "torch" / "version.py").write_text(version)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    backend = ModuleType("embedding.torch_backend")
    backend.has_cuda = lambda: usable  # type: ignore[attr-defined]
    backend.free_bytes = lambda device: free  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, backend.__name__, backend)


@pytest.mark.parametrize(("available", "device"), [(True, "cuda:0"), (False, "cpu")])
def test_auto_is_the_first_gpu_that_torch_can_use(
    available: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, usable=available)
    assert resolve_device("auto") == device


def test_auto_is_the_cpu_without_importing_a_torch_for_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CPU, monkeypatch, usable=True)
    assert resolve_device("auto") == "cpu"


def test_openvino_stays_on_the_cpu_of_a_machine_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, usable=True)
    assert EmbeddingSettings(backend="openvino").torch_device == "cpu"
    assert EmbeddingSettings().torch_device == "cuda:0"
    assert EmbeddingSettings(device="cpu").torch_device == "cpu"


@pytest.mark.parametrize(
    ("free", "tokens"),
    [(80 << 30, 65_536), (6 << 30, 32_768), (1 << 30, 8_192), (32 << 20, 512), (0, 512)],
)
def test_a_batch_on_a_gpu_has_the_tokens_that_a_quarter_of_the_free_memory_holds(
    free: int, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, usable=True, free=free)
    assert EmbeddingSettings().batch_tokens == tokens
    assert EmbeddingSettings(token_budget=96).batch_tokens == 96
    assert EmbeddingSettings(device="cpu").batch_tokens == 512


def test_a_model_that_is_loaded_does_not_change_the_size_of_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _torch(tmp_path, CUDA, monkeypatch, usable=True, free=80 << 30)
    settings = EmbeddingSettings()
    assert settings.batch_tokens == 65_536
    monkeypatch.setattr(sys.modules["embedding.torch_backend"], "free_bytes", lambda device: 0)
    assert settings.batch_tokens == 65_536


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:7"])
def test_a_named_device_is_taken_as_it_is(device: str) -> None:
    assert resolve_device(device) == device
