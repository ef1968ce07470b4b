"""`nearline load`: requests at a fixed rate, whether or not earlier ones have been answered."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import InvalidRequest, NearlineError
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.terminal import options
from nearline_cli.terminal.output import JsonFlag, print_json, print_table


@dataclass(slots=True)
class LoadResult:
    """What came of the requests. latencies_s: of those answered, from their scheduled arrival."""

    sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def load(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests per second.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 20.0,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Query texts: a line each, or .jsonl with "text".'),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Query vectors, a row each.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=c.MAX_K, help="Hits wanted.")] = 10,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Deadline of a request in seconds.")
    ] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Send searches to a running router in an open loop and print the latencies.

    Requests leave at fixed times. A latency counts from the time a request was due, so a server
    that falls behind shows it; a closed loop would slow down with it and hide it.
    """
    queries = _queries(texts, vectors)
    outcome = asyncio.run(
        search_open_loop(
            address, queries, rate, seconds, c.SearchOptions(k=k), collection, timeout_s
        )
    )
    spent = np.array(outcome.latencies_s or [np.nan]) * 1e3
    record: dict[str, object] = {
        "rate": rate,
        "seconds": seconds,
        "sent": outcome.sent,
        "ok": len(outcome.latencies_s),
        "errors": dict(outcome.errors),
    }
    for name, value in (
        *((f"p{point}_ms", np.percentile(spent, point)) for point in (50, 95, 99)),
        ("max_ms", spent.max()),
    ):
        record[name] = round(float(value), 3) if outcome.latencies_s else None
    record |= {"k": k, "queries": len(queries), "kind": "text" if texts else "vector"}
    if as_json:
        print_json(record)
    else:
        print_table(("figure", "value"), record.items())


async def search_open_loop(
    address: str,
    queries: Sequence[c.Query],
    rate: float,
    seconds: float,
    search: c.SearchOptions,
    collection: str,
    timeout_s: float,
) -> LoadResult:
    """Sends searches at fixed times, whether or not earlier ones have been answered.

    Args:
        rate: Of requests, per second.
        timeout_s: Deadline of each.
    """
    loop = asyncio.get_running_loop()
    outcome = LoadResult()
    async with RetrievalClient(address) as client:

        async def ask(number: int, due: float) -> None:
            outcome.sent += 1
            query = queries[number % len(queries)]
            try:
                await client.search(query, search, collection=collection, timeout_s=timeout_s)
            except NearlineError as error:
                outcome.errors[type(error).__name__] += 1
            else:
                outcome.latencies_s.append(loop.time() - due)

        # Connects, and fails here rather than a thousand times over.
        await client.search(queries[0], search, collection=collection, timeout_s=timeout_s)
        await run_open_loop(rate, math.ceil(rate * seconds), ask)
    return outcome


def _queries(texts: Path | None, vectors: Path | None) -> list[c.Query]:
    if (texts is None) == (vectors is None):
        raise InvalidRequest("give one of --texts FILE and --vectors FILE.npy", field="texts")
    if texts is not None:
        queries = [c.Query(text=text) for text in _texts(texts)]
    else:
        assert vectors is not None
        queries = [c.Query(vector=row) for row in _matrix(vectors)]
    if not queries:
        raise InvalidRequest(f"{texts or vectors} holds no query", field="texts")
    return queries


def _texts(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                text = json.loads(line)["text"] if path.suffix == ".jsonl" else line
                if text.strip():
                    yield text.strip()
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f'{path} cannot be read: {error}; give a text per line, or .jsonl with a key "text"',
            field="texts",
        ) from error


def _matrix(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} is not a .npy file that can be read: {error}", field="vectors"
        ) from error
    if matrix.ndim != 2:
        raise InvalidRequest(f"{path} has shape {matrix.shape}; (n, d) is needed", field="vectors")
    return np.asarray(matrix[:10_000], np.float32)
