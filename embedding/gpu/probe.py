"""Prints the free memory of each GPU that torch can use: `python -m embedding.gpu.probe`.

It runs in a process of its own: a process that has used CUDA keeps its errors, and hundreds of MB
of each GPU.
"""

from __future__ import annotations

import json
import sys

import torch


def main() -> None:
    """Prints one JSON list of bytes, by number of the GPU; empty if there is none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sys.stdout.write(json.dumps([torch.cuda.mem_get_info(gpu)[0] for gpu in range(count)]) + "\n")


if __name__ == "__main__":
    main()
