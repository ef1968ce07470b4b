"""Mixed load on a fleet: `python -m benchmarks.fleet.load`, run in a container of its own.

An open loop of searches, lists, answers, HTTP searches, and, with --write, live writes,
interactions and documents for the queue. It ends on SIGTERM; then it prints one JSON object.

Each request has a budget of seconds since it was due, and fails if it has no complete reply by
then. Without --retry it is called once: by Nearline's client, which repeats a call once that no
server has begun, or over HTTP without any repetition. With --retry, the caller tries again, as an
application does with `nearline.retry`, as long as the service is unavailable or overloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import signal
import socket
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from nearline import contract as c
from nearline.clients import GenerationClient, IngestClient, RetrievalClient
from nearline.errors import DeadlineExceeded, NearlineError, NotReady, Overloaded
from nearline.retry import retry
from nearline_cli.evaluate.open_loop import run_open_loop

# Documents d0.md, d1.md, …; documents that writes change; users.
_DOCUMENTS, _WRITTEN, _USERS = 40, 500, 50
_POLL_S = 0.25
_ROUTER, _GENERATION, _QUEUE = "router:7700", "generation:7703", "ingest:7705"
_GATEWAY, _GATEWAY_PORT = "gateway", 7706
_WHOLE = (c.Finish.COMPLETE, c.Finish.LENGTH)
# Requests of each kind among twenty.
READS = {"search": 7, "list": 5, "http": 6, "answer": 2}
WRITES = {"search": 6, "list": 4, "http": 2, "answer": 2, "write": 3, "interaction": 2, "ingest": 1}


@dataclass
class KindResult:
    """Outcomes of the requests of one kind. ok: Complete replies within their budget."""

    sent: int = 0
    ok: int = 0
    retried: int = 0
    partial: int = 0
    failed: Counter[str] = field(default_factory=Counter)


class MixedLoad:
    """Sends requests to a router, a generation service, a gateway and a queue.

    Args:
        options: The options of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        mix = WRITES if options.write else READS
        self.results = {kind: KindResult() for kind in mix}
        self._options = options
        self._order = [kind for kind, many in mix.items() for _ in range(many)]
        np.random.default_rng(0).shuffle(self._order)
        self._retrieval = RetrievalClient(_ROUTER)
        self._generation = GenerationClient(_GENERATION)
        self._queue = IngestClient(_QUEUE)

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until stopped, and waits for the replies."""
        numbers = itertools.takewhile(lambda _: not stop.is_set(), itertools.count())
        async with self._retrieval, self._generation, self._queue:
            await run_open_loop(self._options.rate, numbers, self._send)

    async def _send(self, number: int, due: float) -> None:
        kind = self._order[number % len(self._order)]
        result = self.results[kind]
        result.sent += 1
        loop = asyncio.get_running_loop()
        end = due + self._options.budget
        call: Callable[[int, float], Awaitable[bool]] = getattr(self, f"_{kind}")

        def again(_: NearlineError) -> None:
            result.retried += 1

        try:
            async with asyncio.timeout_at(end):
                if self._options.retry:
                    whole = await retry(
                        lambda: call(number, end - loop.time()),
                        on=(NotReady, Overloaded, DeadlineExceeded),
                        delays=itertools.repeat(_POLL_S),
                        timeout_s=end - loop.time(),
                        on_failure=again,
                    )
                else:
                    whole = await call(number, end - loop.time())
        except NearlineError as error:
            result.failed[f"{type(error).__name__}: {error.message[:160]}"] += 1
        except TimeoutError:
            result.failed["no reply within the budget"] += 1
        else:
            result.ok += 1
            result.partial += not whole

    async def _search(self, number: int, left_s: float) -> bool:
        query = c.Query(text=f"boats on river {number % _DOCUMENTS}")
        options = c.SearchOptions(k=3, mode=c.SearchMode.HYBRID)
        reply = await self._retrieval.search(query, options, timeout_s=left_s)
        return not reply.info.coverage.missing_shards

    async def _list(self, number: int, left_s: float) -> bool:
        audience = c.Audience(user_id=f"u{number % _USERS}")
        options = c.RecommendOptions(n=5)
        reply = await self._retrieval.recommend(audience, options, timeout_s=left_s)
        return not reply.info.coverage.missing_shards

    async def _answer(self, number: int, left_s: float) -> bool:
        question = f"Where does river {number % _DOCUMENTS} flow?"
        events = [event async for event in self._generation.generate(question, timeout_s=left_s)]
        last = events[-1] if events else None
        whole = isinstance(last, c.Done) and last.finish in _WHOLE
        if not (whole or isinstance(last, c.Refusal)):
            raise NotReady(f"an answer ended with {type(last).__name__}")
        return True

    async def _http(self, number: int, left_s: float) -> bool:
        """Searches over a connection of its own, as a client of a few lines does."""
        body = json.dumps({"query": {"text": f"river {number % _DOCUMENTS}"}}).encode()

        def post() -> None:
            # Gateways of a fleet listen on loopback addresses here, and take no other host.
            address = socket.gethostbyname(_GATEWAY)
            url = f"http://{address}:{_GATEWAY_PORT}/v1/collections/default/search"
            request = urllib.request.Request(url, body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=max(0.1, left_s)).close()

        try:
            await asyncio.to_thread(post)
        except (OSError, http.client.HTTPException) as error:
            raise NotReady(f"HTTP: {error}") from error
        return True

    async def _write(self, number: int, left_s: float) -> bool:
        name = number % _WRITTEN
        text = f"The canal {name} was dug in {1000 + number % 1000}."
        item = c.Item(id=f"live-{name}", text=text)
        await self._retrieval.upsert_items([item], timeout_s=left_s)
        return True

    async def _interaction(self, number: int, left_s: float) -> bool:
        done = c.Interaction(item_id=f"d{number % _DOCUMENTS}.md", user_id=f"u{number % _USERS}")
        await self._retrieval.record_interactions([done], timeout_s=left_s)
        return True

    async def _ingest(self, number: int, left_s: float) -> bool:
        name = number % _WRITTEN
        source = c.SourceFile(f"queued-{name}.md", f"The lock {name} is old.".encode())
        await self._queue.submit([source], timeout_s=left_s)
        return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet.load")
    parser.add_argument("--rate", type=float, default=10.0, help="Requests per second.")
    parser.add_argument("--budget", type=float, default=10.0, help="Seconds of a request.")
    parser.add_argument("--write", action="store_true", help="Write, too.")
    parser.add_argument("--retry", action="store_true", help="Try again while unavailable.")
    return parser.parse_args()


async def _main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    load = MixedLoad(_options())
    await load.run(stop)
    json.dump({kind: vars(one) for kind, one in load.results.items()}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main())
