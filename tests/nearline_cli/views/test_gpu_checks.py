"""Tests of the verdicts of `nearline doctor` on GPUs, for findings that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nearline_cli.local.gpu_probe import Gpu, GpuProbe
from nearline_cli.views.checks import CheckStatus
from nearline_cli.views.gpu_checks import judge_gpus

H100 = Gpu("NVIDIA H100", 80 << 30, 79 << 30)
GOOD = GpuProbe(
    hardware=True,
    gpus=(H100,),
    driver="580.65.06",
    torch_cuda=13,
    faiss="faiss-gpu",
    faiss_cuda=12,
)
NO_DRIVER = "NVML Shared Library Not Found"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (GOOD, "NVIDIA H100 with 80.0 GiB; driver 580.65.06; torch for CUDA 13 and faiss-gpu"),
        (GpuProbe(), "none; everything runs on the CPU"),
        (GpuProbe(problem=NO_DRIVER), "none; everything runs on the CPU"),
    ],
)
def test_a_machine_that_can_do_what_is_installed_is_in_order(found: GpuProbe, said: str) -> None:
    check = judge_gpus(found)
    assert check.verdict is CheckStatus.OK and check.found.startswith(said)


@pytest.mark.parametrize(
    ("found", "verdict", "said", "remedy"),
    [
        pytest.param(
            GpuProbe(hardware=True, problem=NO_DRIVER, torch_cuda=13, faiss="faiss-gpu"),
            CheckStatus.FAIL,
            "whose driver does not answer: NVML Shared Library Not Found",
            "install NVIDIA's driver 580 or newer on the host",
            id="no-driver",
        ),
        pytest.param(
            GpuProbe(hardware=True, problem=NO_DRIVER),
            CheckStatus.WARN,
            "whose driver does not answer",
            "Without it, everything runs on the CPU",
            id="no-driver-and-wheels-for-cpus",
        ),
        pytest.param(
            replace(GOOD, driver="550.54.15"),
            CheckStatus.FAIL,
            "driver 550.54.15 is too old for torch, which needs CUDA 13",
            "580 or newer",
            id="old-driver",
        ),
        pytest.param(
            GpuProbe(hardware=True, gpus=(H100,), driver="580.65.06", torch_cuda=0),
            CheckStatus.WARN,
            "unused: torch is absent or built for CPUs and the FAISS wheel is one for CPUs",
            "standard-gpu",
            id="wheels-for-cpus",
        ),
        pytest.param(
            replace(GOOD, gpus=(Gpu("NVIDIA H100", 80 << 30, 1 << 30),)),
            CheckStatus.WARN,
            "GPU 0 has 1.0 GiB free",
            "--device cuda:N",
            id="no-memory",
        ),
        pytest.param(
            replace(GOOD, gpus=()),
            CheckStatus.FAIL,
            "shows no GPU to this process",
            "--gpus all",
            id="hidden",
        ),
        pytest.param(
            GpuProbe(faiss="faiss-gpu", faiss_cuda=12),
            CheckStatus.WARN,
            "none, but faiss-gpu for CUDA 12",
            "nearline-server[standard]",
            id="no-gpu",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    found: GpuProbe, verdict: CheckStatus, said: str, remedy: str
) -> None:
    check = judge_gpus(found)
    assert check.verdict is verdict
    assert said in check.found and remedy in check.remedy
