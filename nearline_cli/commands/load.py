"""`nearline load`: searches a running router at a fixed rate."""

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
from nearline_cli.terminal.output import JsonFlag, print_figures


@dataclass(slots=True)
class LoadResult:
    """Outcome of the requests.

    latencies_s: Latencies of successful requests, from the time each was due.
    """

    sent: int = 0
    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


def load(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    rate: Annotated[float, typer.Option(min=0.01, help="Requests per second.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Duration of the run in seconds.")] = 20.0,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='Query texts: one per line, or .jsonl with "text".'),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Query vectors, one per row.")
    ] = None,
    k: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=c.MAX_K, metavar="N", help="Number of hits.")
    ] = 10,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    timeout_s: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    as_json: JsonFlag = False,
) -> None:
    """Send searches to a running router at a fixed rate, and print the latencies.

    For example: nearline load --texts queries.txt --rate 100 --seconds 30

    Requests are sent at fixed times. A latency is measured from the time a request was due, so it
    shows when the server falls behind; a closed loop would slow down with the server and hide it.
    """
    queries = _queries(texts, vectors)
    options = c.SearchOptions(k=k, payload=frozenset())
    result = asyncio.run(
        search_open_loop(address, queries, rate, seconds, options, collection, timeout_s)
    )
    latencies = np.array(result.latencies_s or [np.nan]) * 1e3
    record: dict[str, object] = {
        "rate": rate,
        "seconds": seconds,
        "sent": result.sent,
        "ok": len(result.latencies_s),
        "errors": dict(result.errors),
    }
    for name, value in (
        *((f"p{point}_ms", np.percentile(latencies, point)) for point in (50, 95, 99)),
        ("max_ms", latencies.max()),
    ):
        record[name] = round(float(value), 3) if result.latencies_s else None
    record |= {"k": k, "queries": len(queries), "kind": "text" if texts else "vector"}
    print_figures(record, as_json=as_json)


async def search_open_loop(
    address: str,
    queries: Sequence[c.Query],
    rate: float,
    seconds: float,
    search: c.SearchOptions,
    collection: str,
    timeout_s: float,
) -> LoadResult:
    """Sends searches at a fixed rate, see `run_open_loop`.

    Args:
        address: The router's.
        queries: Queries to repeat in turn.
        rate: Requests per second.
        seconds: Duration of the run.
        search: Options of each search.
        collection: Name of the collection.
        timeout_s: Timeout of each request.
    Raises:
        NearlineError: The first search, which opens the connection, failed.
    """
    loop = asyncio.get_running_loop()
    result = LoadResult()
    async with RetrievalClient(address) as client:

        async def send(number: int, due: float) -> None:
            result.sent += 1
            query = queries[number % len(queries)]
            try:
                await client.search(query, search, collection=collection, timeout_s=timeout_s)
            except NearlineError as error:
                result.errors[type(error).__name__] += 1
            else:
                result.latencies_s.append(loop.time() - due)

        # Opens the connection, and fails here rather than a thousand times.
        await client.search(queries[0], search, collection=collection, timeout_s=timeout_s)
        await run_open_loop(rate, range(math.ceil(rate * seconds)), send)
    return result


def _queries(texts: Path | None, vectors: Path | None) -> list[c.Query]:
    if (texts is None) == (vectors is None):
        raise InvalidRequest("use either --texts FILE or --vectors FILE.npy", field="texts")
    if texts is not None:
        queries = [c.Query(text=text) for text in _texts(texts)]
    else:
        assert vectors is not None
        queries = [c.Query(vector=row) for row in _matrix(vectors)]
    if not queries:
        raise InvalidRequest(f"{texts or vectors} contains no query", field="texts")
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
            f'{path} cannot be read: {error}; give one text per line, or .jsonl with a key "text"',
            field="texts",
        ) from error


def _matrix(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidRequest(
            f"{path} cannot be read as a .npy file: {error}", field="vectors"
        ) from error
    if matrix.ndim != 2:
        raise InvalidRequest(f"{path} has shape {matrix.shape}; (n, d) is needed", field="vectors")
    return np.asarray(matrix[:10_000], np.float32)
