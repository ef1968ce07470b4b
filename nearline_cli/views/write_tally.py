"""Results of items that a command writes: reported on the way, summed up at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.counts import counted
from nearline.errors import NearlineError
from nearline.retry import SAME_KEY, retry_while_overloaded
from nearline_cli.inputs.rejects import Rejects
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import waiting_note


@dataclass(slots=True)
class WriteTally(Rejects):
    """Results of the items so far.

    places: Where the items of the current batch were read, by id.
    """

    counts: Counter[c.WriteOutcome] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)
    marks: list[bytes] = field(default_factory=list)
    batches: int = 0
    start: float = field(default_factory=time.perf_counter)
    served_s: float | None = None

    async def take(self, write: Callable[[], Awaitable[c.WriteReply]]) -> None:
        """Writes a batch, and retries while the service is overloaded."""
        try:
            with waiting_note("the router", quiet=self.as_json):
                reply = await retry_while_overloaded(write)
        except NearlineError as error:
            text = error.message.replace(SAME_KEY, "run the same command again, which is safe")
            if self.batches:
                first = next(iter(self.places.values()), "")
                text += f"; durable before {first}: {counted(self.counts.total(), 'item')}"
            raise error.with_message(text) from error
        self.batches += 1
        self.marks.append(reply.watermark)
        for result in reply.results:
            if result.outcome is c.WriteOutcome.REJECTED:
                place = self.places.get(result.id, result.id)
                self.refuse(place, result.reason, result.message, result.id)
            else:
                self.counts[result.outcome] += 1
        self.places.clear()

    async def finish(self, client: RetrievalClient, collection: str, wait_s: float | None) -> None:
        """Merges the watermarks, and waits until they are served if `wait_s` is given."""
        from retrieval.protocols.watermark import decode_watermark, merge_watermarks

        known = tuple(
            mark for mark in map(decode_watermark, reversed(self.marks)) if mark is not None
        )
        self.marks = [merge_watermarks(known).encode()] if known else []
        if wait_s is not None and self.marks:
            start = time.perf_counter()
            await client.count_items(
                collection=collection, min_watermark=self.marks[0], timeout_s=wait_s
            )
            self.served_s = time.perf_counter() - start

    def print(self) -> None:
        """Prints the results; exits with 1 if an item was not written."""
        spent_s = time.perf_counter() - self.start
        counts = {
            outcome.value: self.counts[outcome]
            for outcome in c.WriteOutcome
            if self.counts[outcome]
        }
        if self.as_json:
            output.print_json(
                {
                    "outcomes": counts,
                    "refused": self.bad_count,
                    "refusals": self.bad,
                    "lists": self.list_records(),
                    "watermark": self.marks[0].hex() if self.marks else "",
                    "seconds": round(spent_s, 3),
                    "waited_ms": output.to_milliseconds(self.served_s),
                }
            )
        else:
            parts = [f"{number:,} {name}" for name, number in counts.items()]
            parts += [f"{self.bad_count:,} refused"] if self.bad_count else []
            served = "" if self.served_s is None else ", served by every shard"
            output.console().print(f"{', '.join(parts) or 'no items'} in {spent_s:.1f} s{served}")
        if self.bad_count:
            raise typer.Exit(1)
