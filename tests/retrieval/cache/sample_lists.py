"""Cached lists for tests, with a clock that tests set."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from retrieval.cache.cached_list import CachedList, ListKey
from retrieval.protocols.watermark import Watermark

KEY = ListKey("default", "snapshot1", "policy1", "filter1", "title", "item:42")


def mark(position: int, log_id: str = "log") -> Watermark:
    """Returns a watermark with every partition at one position."""
    return Watermark(log_id, (position,) * 64)


@dataclass
class Clock:
    """Microseconds since 1970, as a test sets them."""

    now_us: int = 1_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_us

    def goes_on(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)


@dataclass
class Maker:
    """Computes lists, each with the number of the computation as its item's id.

    may: Computations wait until it is set. error: Raised instead; absent: None is given instead.
    """

    clock: Clock
    cost_s: float = 0.0
    watermark: bytes = b""
    error: Exception | None = None
    absent: bool = False
    made: int = 0
    at_once: int = 0
    most_at_once: int = 0
    may: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may.set()

    async def __call__(self) -> CachedList | None:
        self.made += 1
        made = self.made
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        await self.may.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        if self.absent:
            return None
        return CachedList(
            (str(made),), (b"as it goes out",), self.clock(), self.cost_s, self.watermark
        )


def number(hot: CachedList | None) -> int:
    """Returns which computation a list is from; 0: there is no such item."""
    return int(hot.ids[0]) if hot else 0


async def until_idle() -> None:
    """Lets everything go on that needs no more than the event loop."""
    for _ in range(20):
        await asyncio.sleep(0)
