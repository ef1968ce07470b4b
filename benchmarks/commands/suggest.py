"""`nearline bench suggest`: completions of titles while people type, in an open loop."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.baselines.processes import router_process
from nearline.clients import RetrievalClient
from nearline.contract import Item, Suggestion
from nearline.errors import DeadlineExceeded, Overloaded
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.terminal.output import JsonFlag, print_figures

_DIM = 4
_SYLLABLES = tuple(a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er"))
_TYPOS_EVERY = 20
_WARM_UP_S = 2.0


def bench_suggest(
    *,
    documents: Annotated[int, typer.Option(min=500, help="Titles.")] = 1_000_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of load.")] = 20.0,
    shards: Annotated[int, typer.Option(min=1, help="Shards.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Type titles letter by letter, one request for each, at a fixed rate.

    Titles have one to five words, of which few are in many titles and many in few. Every twentieth
    title is typed with a wrong letter. Latencies are from the time at which a request was due.
    refused: Requests that an overloaded router did not take. answered: Share with a suggestion.
    """
    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        record = asyncio.run(_measure(Path(folder), documents, rate, seconds, shards))
    print_figures(record, as_json=as_json)


async def _measure(
    folder: Path, documents: int, rate: float, seconds: float, shards: int
) -> dict[str, object]:
    # Imported late: it loads packages that only servers need.
    from index_builder.options.build_options import BuildOptions, IndexOptions
    from index_builder.pipeline.builder import build_snapshot

    titles = list(_titles(documents))
    vector = np.ones(_DIM, np.float32)
    items = (
        Item(id=f"d{number}", title=title, vector=vector) for number, title in enumerate(titles)
    )
    draw = random.Random(1)
    options = BuildOptions(
        store=str(folder),
        shards=shards,
        golden_queries=1,
        index=IndexOptions(factory="Flat"),
        popularity={f"d{number}": draw.random() for number in range(documents)},
    )
    began = time.perf_counter()
    await build_snapshot(items, options)
    build_s = time.perf_counter() - began
    latencies: list[float] = []
    found = failed = 0
    async with (
        router_process(("--store", str(folder)), 0) as router,
        RetrievalClient(router.address) as client,
    ):
        loop = asyncio.get_running_loop()

        async def send(number: int, due: float) -> None:
            nonlocal found, failed
            suggestions: Sequence[Suggestion] = ()
            refused = False
            try:
                suggestions = (await client.suggest(typed[number])).suggestions
            except (Overloaded, DeadlineExceeded):
                refused = True
            if number >= warm:
                latencies.append(loop.time() - due)
                found += bool(suggestions)
                failed += refused

        warm = int(rate * _WARM_UP_S)
        typed = _typed(titles, warm + int(rate * seconds))
        await run_open_loop(rate, range(len(typed)), send)
    p50, p99 = (float(np.percentile(latencies, share)) * 1e3 for share in (50, 99))
    return {
        "documents": documents,
        "rate": rate,
        "requests": len(latencies),
        "answered": round(found / len(latencies), 4),
        "refused": failed,
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "build_s": round(build_s, 1),
        "shards": shards,
    }


def _titles(number: int) -> Iterator[str]:
    """Yields titles whose words follow Zipf's law."""
    draw = np.random.default_rng(0)
    spelling = random.Random(0)
    words = [
        "".join(spelling.choices(_SYLLABLES, k=spelling.randint(2, 4))).capitalize()
        for _ in range(100_000)
    ]
    for length in draw.integers(1, 6, number).tolist():
        picked = np.minimum(draw.zipf(1.2, length), len(words)) - 1
        yield " ".join(words[at] for at in picked.tolist())


def _typed(titles: Sequence[str], number: int) -> list[str]:
    """Returns the beginnings of titles, each a letter longer than the one before."""
    draw = random.Random(2)
    typed: list[str] = []
    while len(typed) < number:
        title = draw.choice(titles).lower()
        if len(typed) % _TYPOS_EVERY == 0 and len(title) > 5:
            title = title[:3] + draw.choice("qxz") + title[4:]
        typed += [title[:length] for length in range(1, min(len(title), 12) + 1)]
    return typed[:number]
