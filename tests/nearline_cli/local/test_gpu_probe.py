"""The probe of GPUs, with a driver and a PCI bus that are told what to say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nearline_cli.local import gpu_probe
from nearline_cli.local.gpu_probe import Gpu, probe_gpus


class NvmlError(Exception):
    """Stands for the error of the driver's library."""


class FakeNvml(ModuleType):
    """The driver's library, of a machine with GPUs of 80 and 40 GiB."""

    NVMLError = NvmlError

    def __init__(self, fails_at: str = "") -> None:
        super().__init__("pynvml")
        self.fails_at = fails_at
        self.ended = 0

    def nvmlInit(self) -> None:
        self._fail("init")

    def nvmlShutdown(self) -> None:
        self.ended += 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        self._fail("handle")
        return number

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA {'HA'[handle]}100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=(80, 40)[handle] << 30, free=(70, 1)[handle] << 30)

    def _fail(self, at: str) -> None:
        if self.fails_at == at:
            raise NvmlError("GPU is lost")


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = probe_gpus()
    assert found.gpus == (
        Gpu("NVIDIA H100", 80 << 30, 70 << 30),
        Gpu("NVIDIA A100", 40 << 30, 1 << 30),
    )
    assert (found.hardware, found.driver, found.problem, nvml.ended) == (True, "580.65.06", "", 1)


@pytest.mark.parametrize(("fails_at", "ended"), [("init", 0), ("handle", 1)])
def test_a_driver_that_fails_says_why(
    fails_at: str, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = FakeNvml(fails_at)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = probe_gpus()
    assert (found.gpus, found.driver, found.problem) == ((), "", "GPU is lost")
    assert nvml.ended == ended


def test_a_gpu_without_a_driver_is_seen_on_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {
        "0000:00:01.0": ("0x8086", "0x030000"),  # Graphics of another maker.
        "0000:00:02.0": ("0x10de", "0x0c0330"),  # A USB controller of NVIDIA.
        "0000:00:03.0": None,  # Gone while we look.
    }
    for name, told in devices.items():
        (tmp_path / name).mkdir()
        for file, value in zip(("vendor", "class"), told or (), strict=False):
            (tmp_path / name / file).write_text(f"{value}\n")
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("init"))
    monkeypatch.setattr(gpu_probe, "_PCI_DEVICES", tmp_path)
    assert not probe_gpus().hardware
    (tmp_path / "0000:00:02.0" / "class").write_text("0x030200\n")
    assert probe_gpus().hardware
    monkeypatch.setattr(gpu_probe, "_PCI_DEVICES", tmp_path / "none")
    assert not probe_gpus().hardware


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("cuda: Optional[str] = '12.8'\nhip = None\n", 12),
        ("cuda = '13.0'\n", 13),
        ("cuda: Optional[str] = None\n", 0),
        ("", 0),
    ],
)
def test_the_cuda_of_torch_is_read_without_importing_it(
    text: str, major: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError\n")
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert probe_gpus().torch_cuda == major


def test_the_cuda_of_a_faiss_wheel_is_read_from_what_it_requires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "faiss_gpu-1.15.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: faiss-gpu\nVersion: 1.15.1\nRequires-Dist: numpy>=1.25\n"
        "Requires-Dist: nvidia-cuda-runtime-cu12<13,>=12.6\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = probe_gpus()
    assert (found.faiss, found.faiss_cuda) == ("faiss-gpu", 12)
