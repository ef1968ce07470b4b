"""GPUs by their datasheets."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU.

    memory: Bytes. bandwidth: Bytes of its memory read or written per second. flops: Dense fp16
    operations of its tensor cores per second; datasheets often print twice that, with sparsity.
    """

    memory: float
    bandwidth: float
    flops: float

    def at(self, *, bandwidth_efficiency: float, flop_efficiency: float) -> Card:
        """Returns the card with these shares, in (0, 1], of its bandwidth and of its operations."""
        return replace(
            self,
            bandwidth=self.bandwidth * bandwidth_efficiency,
            flops=self.flops * flop_efficiency,
        )


# Source: NVIDIA's datasheets of the H200 (SXM), H100 (SXM), A100 (SXM, 80 GB), L4 and T4.
CARDS = {
    "h200": Card(memory=141e9, bandwidth=4.8e12, flops=989e12),
    "h100": Card(memory=80e9, bandwidth=3.35e12, flops=989e12),
    "a100": Card(memory=80e9, bandwidth=2.039e12, flops=312e12),
    "l4": Card(memory=24e9, bandwidth=300e9, flops=121e12),
    "t4": Card(memory=16e9, bandwidth=320e9, flops=65e12),
}
