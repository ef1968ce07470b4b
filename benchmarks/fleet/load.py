"""Mixed load on a fleet: `python -m benchmarks.fleet.load`, run in a container of its own.

An open loop of searches, lists, answers, HTTP searches, and, with --write, live writes,
interactions and documents for the queue. It ends on SIGTERM, or after --seconds; then it prints one
JSON object.

Each request has a budget of seconds since it was due, and fails if it has no complete reply by
then. Without --retry it is called once: by Nearline's client, which repeats a call once that no
server has begun, or over HTTP without any repetition. With --retry, the caller tries again, as an
application does with `nearline.retry`, as long as the service is unavailable or overloaded.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

from nearline import contract as c
from nearline.clients import GenerationClient, IngestClient, RetrievalClient
from nearline.errors import DeadlineExceeded, NearlineError, NotReady, Overloaded
from nearline.retry import retry
from nearline_cli.evaluate.open_loop import run_open_loop

USERS = 50
_POLL_S = 0.25
_WHOLE = (c.Finish.COMPLETE, c.Finish.LENGTH)
# Requests of each kind among twenty.
READS = {"search": 7, "list": 5, "http": 6, "answer": 2}
WRITES = {"search": 6, "list": 4, "http": 2, "answer": 2, "write": 3, "interaction": 2, "ingest": 1}


@dataclass(slots=True)
class KindResult:
    """Outcomes of the requests of one kind; latencies count from when a request was due."""

    sent: int = 0
    retried: int = 0
    partial: int = 0
    latencies_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def record(self) -> dict[str, object]:
        """Returns what is reported."""
        latencies = np.array(self.latencies_s or [math.nan]) * 1e3
        return {
            "sent": self.sent,
            "ok": len(self.latencies_s),
            "failed": dict(self.failed),
            "retried": self.retried,
            "partial": self.partial,
            **{f"p{at}_ms": round(float(np.percentile(latencies, at)), 1) for at in (50, 99)},
            "max_ms": round(float(latencies.max()), 1),
        }


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
        np.random.default_rng(options.seed).shuffle(self._order)
        self._retrieval = RetrievalClient(options.retrieval)
        self._generation = GenerationClient(options.generation)
        self._queue = IngestClient(options.ingest)
        self._gateway = options.gateway.rpartition(":")
        self._documents = options.documents

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until stopped, and waits for the replies."""
        rate, limit = self._options.rate, self._options.seconds
        numbers = itertools.takewhile(
            lambda number: not stop.is_set() and (not limit or number < limit * rate),
            itertools.count(),
        )
        async with self._retrieval, self._generation, self._queue:
            await run_open_loop(rate, numbers, self._send)

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
            result.partial += not whole
            result.latencies_s.append(loop.time() - due)

    async def _search(self, number: int, left_s: float) -> bool:
        query = c.Query(text=f"boats on river {number % self._documents}")
        options = c.SearchOptions(k=3, mode=c.SearchMode.HYBRID)
        reply = await self._retrieval.search(query, options, timeout_s=left_s)
        return not reply.info.coverage.missing_shards

    async def _list(self, number: int, left_s: float) -> bool:
        audience = c.Audience(user_id=f"u{number % USERS}")
        options = c.RecommendOptions(n=5)
        reply = await self._retrieval.recommend(audience, options, timeout_s=left_s)
        return not reply.info.coverage.missing_shards

    async def _answer(self, number: int, left_s: float) -> bool:
        question = f"Where does river {number % self._documents} flow?"
        events = [event async for event in self._generation.generate(question, timeout_s=left_s)]
        last = events[-1] if events else None
        whole = isinstance(last, c.Done) and last.finish in _WHOLE
        if not (whole or isinstance(last, c.Refusal)):
            raise NotReady(f"an answer ended with {type(last).__name__}")
        return True

    async def _http(self, number: int, left_s: float) -> bool:
        """Searches over a connection of its own, as a client of a few lines does."""
        host, _, port = self._gateway
        body = json.dumps({"query": {"text": f"river {number % self._documents}"}})
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                # Gateways of a fleet listen on loopback addresses here, and take no other host.
                address = writer.get_extra_info("peername")[0]
                head = (
                    f"POST /v1/collections/default/search HTTP/1.1\r\nhost: {address}\r\n"
                    f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                    "connection: close\r\n\r\n"
                )
                writer.write(f"{head}{body}".encode())
                reply = (await reader.read()).decode("utf-8", "replace")
            finally:
                writer.close()
        except OSError as error:
            raise NotReady(f"HTTP: {error.strerror or type(error).__name__}") from error
        status = reply.partition("\r\n")[0].partition(" ")[2]
        if not status.startswith("200"):
            raise NotReady(f"HTTP {status or 'without a reply'}")
        return True

    async def _write(self, number: int, left_s: float) -> bool:
        name = number % self._options.written
        text = f"The canal {name} was dug in {1000 + number % 1000}."
        item = c.Item(id=f"live-{name}", text=text)
        await self._retrieval.upsert_items([item], timeout_s=left_s)
        return True

    async def _interaction(self, number: int, left_s: float) -> bool:
        done = c.Interaction(
            item_id=f"d{number % self._documents}.md", user_id=f"u{number % USERS}"
        )
        await self._retrieval.record_interactions([done], timeout_s=left_s)
        return True

    async def _ingest(self, number: int, left_s: float) -> bool:
        name = number % self._options.written
        source = c.SourceFile(f"queued-{name}.md", f"The lock {name} is old.".encode())
        await self._queue.submit([source], timeout_s=left_s)
        return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet.load")
    parser.add_argument("--retrieval", default="router:7700")
    parser.add_argument("--generation", default="generation:7703")
    parser.add_argument("--gateway", default="gateway:7706")
    parser.add_argument("--ingest", default="ingest:7705")
    parser.add_argument("--rate", type=float, default=10.0, help="Requests per second.")
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until SIGTERM.")
    parser.add_argument("--budget", type=float, default=10.0, help="Seconds of a request.")
    parser.add_argument("--documents", type=int, default=40, help="Documents d0.md, d1.md, …")
    parser.add_argument("--written", type=int, default=500, help="Documents that writes change.")
    parser.add_argument("--write", action="store_true", help="Write, too.")
    parser.add_argument("--retry", action="store_true", help="Try again while unavailable.")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


async def _main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    load = MixedLoad(_options())
    await load.run(stop)
    json.dump({kind: one.record() for kind, one in load.results.items()}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(_main())
