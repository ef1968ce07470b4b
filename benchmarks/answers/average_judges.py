"""Averages judges, and writes one that ranks better on folders that none of them has seen.

    python -m benchmarks.answers.average_judges --out FILE JUDGE JUDGE …

The judges must be changes of one model; the mean change is written at the rank of the first.
Source: Wortsman et al., "Model soups", 2022.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedding.bert_weights import read_tensors
from embedding.judges.low_rank_model import save_change


def average(changes: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[np.floating[Any]]]:
    """Returns the mean of changes.

    Args:
        changes: At least one, each with the same parts, as `embedding.judges.low_rank.adapt` reads
            them.
    """
    mean: dict[str, NDArray[np.floating[Any]]] = {}
    for name, first in changes[0].items():
        if name.endswith(".down"):
            continue
        if not name.endswith(".up"):
            mean[name] = np.mean([change[name] for change in changes], axis=0, dtype=np.float32)
            continue
        down = f"{name.removesuffix('up')}down"
        products = [change[name].astype(np.float32) @ change[down] for change in changes]
        # The nearest matrix of the rank: Eckart and Young, 1936.
        left, sizes, right = np.linalg.svd(np.mean(products, axis=0), full_matrices=False)
        rank = first.shape[1]
        root = np.sqrt(sizes[:rank])
        mean[name] = np.ascontiguousarray(left[:, :rank] * root, np.float16)
        mean[down] = np.ascontiguousarray(root[:, None] * right[:rank], np.float16)
    return mean


def main() -> None:
    """Reads the options, averages and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("judges", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--learned-from", default="see docs/quality.md")
    options = parser.parse_args()
    changes = [read_tensors([path]) for path in options.judges]
    save_change(average(changes), options.out, options.learned_from)


if __name__ == "__main__":
    main()
