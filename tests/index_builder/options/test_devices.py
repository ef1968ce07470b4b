"""Devices are named as the embedding service names them; workers have a share of a GPU."""

from __future__ import annotations

import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.options.devices import check_gpu_share, gpu_number
from nearline.errors import InvalidRequest


@pytest.mark.parametrize(
    ("device", "number"), [("auto", 0), ("cpu", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:13", 13)]
)
def test_a_device_is_auto_the_cpu_or_a_gpu(device: str, number: int) -> None:
    BuildOptions(store="s", device=device).check()
    assert gpu_number(device) == number


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:-1", "CUDA", "cuda:0 "])
def test_another_word_is_refused(device: str) -> None:
    with pytest.raises(InvalidRequest, match="use auto, cpu, cuda or cuda:N"):
        BuildOptions(store="s", device=device).check()


@pytest.mark.parametrize("share", [0, 0.25, 1, 2, 8])
def test_a_worker_has_a_fraction_of_a_gpu_or_whole_ones(share: float) -> None:
    check_gpu_share(share)


@pytest.mark.parametrize("share", [-1, -0.1, 1.5, 65, float("nan"), float("inf")])
def test_ray_has_no_other_shares(share: float) -> None:
    with pytest.raises(InvalidRequest, match=r"ray_gpu_share is .*; use a fraction"):
        check_gpu_share(share)
