"""The targets of the Dockerfile, and the images that they make."""

from __future__ import annotations

from collections.abc import Sequence

import nearline

CPU_TARGETS = (
    "gateway",
    "cli",
    "generation",
    "retrieval",
    "retrieval-milvus",
    "index_builder",
    "embedding",
    "index_builder-ray",
)
# Gigabytes of CUDA each. `make image` only checks that their requirements can be installed.
GPU_TARGETS = ("embedding-gpu", "retrieval-gpu", "index_builder-gpu")


def image_name(target: str, tag: str = nearline.__version__) -> str:
    """Returns the name of a target's image, such as `nearline-index-builder:0.2.0`."""
    return f"nearline-{target.replace('_', '-')}:{tag}"


def choose_targets(names: Sequence[str]) -> list[str]:
    """Returns the named targets in the order of `CPU_TARGETS`; all of them without names.

    Raises: ValueError: there is no such target.
    """
    for name in names:
        if name not in CPU_TARGETS:
            raise ValueError(
                f"there is no target {name}; TARGETS chooses among {' '.join(CPU_TARGETS)}"
            )
    return [target for target in CPU_TARGETS if not names or target in names]
