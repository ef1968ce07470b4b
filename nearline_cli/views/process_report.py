"""Reports the processes of `nearline up` on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path

from nearline_cli.local.autoscaler import ScalingEvent
from nearline_cli.local.metrics_ports import MetricsEndpoint
from nearline_cli.local.processes import parse_event
from nearline_cli.local.supervisor import ProcessState, StateChange
from nearline_cli.terminal import output
from nearline_cli.terminal.background_writer import BackgroundWriter
from nearline_cli.views.doors import print_doors

# Longest wait for whoever reads the report, at the end.
_FLUSH_S = 2.0
_LOUD = ("warning", "error", "critical")


class ProcessReport:
    """Prints what the supervisor does, as text or JSON.

    What cannot be written, to a full disk or a pipe that nobody reads, is dropped: the processes go
    on. If the reader has gone (`nearline up | head`), the work ends as if it were interrupted.

    is_ready: Whether everything has served at least once.
    """

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.is_ready = False
        self._json = as_json
        self._verbose = verbose
        self._latest: dict[str, StateChange] = {}
        self._died: set[str] = set()
        self._work: asyncio.Task[None] | None = None
        self._unread: BrokenPipeError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = BackgroundWriter(self._reader_gone)

    def run_until_interrupted(self, work: Coroutine[None, None, None]) -> None:
        """Runs the work that reports here; an interrupt is its normal end once everything serves.

        Raises:
            KeyboardInterrupt: It was interrupted before that.
            BrokenPipeError: Nobody reads the report any more.
        """

        async def run() -> None:
            self._work, self._loop = asyncio.current_task(), asyncio.get_running_loop()
            await work

        try:
            asyncio.run(run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            if self._unread is not None:
                raise self._unread from None
            if not self.is_ready:
                self._end_if_unread(130)
                output.print_note("interrupted before everything served; all processes ended")
                raise KeyboardInterrupt from None
        except BaseException:
            self._end_if_unread(1)
            raise
        self._end_if_unread(0)

    def flush(self) -> None:
        """Waits until the report is written, or nobody reads it."""
        self._writer.flush(_FLUSH_S)

    def change(self, change: StateChange) -> None:
        """Reports a state change."""
        if (write := self._change(change)) is not None:
            self._writer.put(write)

    def scaled(self, event: ScalingEvent) -> None:
        """Reports a change of the number of workers."""
        self._writer.put(lambda: self._scaled(event))

    def line(self, name: str, line: str) -> None:
        """Takes a log line of a process, and prints warnings and errors."""
        event = parse_event(line)
        # The reason of a failure is part of the state change, or of the error that ends `up`.
        loud = str(event.get("level")) in _LOUD and event.get("event") != "failed"
        if self._verbose or loud:
            self._writer.put(lambda: output.print_note(f"[{name}] {line}"))

    def ready(
        self,
        address: str,
        metrics: Mapping[str, MetricsEndpoint] | None = None,
        http_address: str = "",
        targets: Path | None = None,
    ) -> None:
        """Reports that everything serves, and prints the table of addresses.

        Args:
            address: Address of the router.
            metrics: Prometheus endpoints by process. Optional.
            http_address: Address of the gateway. Optional.
            targets: File that lists the Prometheus endpoints. Optional.
        """
        self.is_ready = True
        changes = list(self._latest.values())
        self._writer.put(
            lambda: self._ready(address, changes, metrics or {}, http_address, targets)
        )

    def hint(self, text: str) -> None:
        """Prints what to do next, but not among JSON lines."""
        if not self._json:
            self._writer.put(lambda: output.console().print(text))

    def _reader_gone(self, error: BrokenPipeError) -> None:
        known, self._unread = self._unread, error
        if known is None and self._loop is not None and self._work is not None:
            # The work may have ended already.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._work.cancel)

    def _end_if_unread(self, code: int) -> None:
        """Ends the process here if its report is not read: Python's own end would wait for it."""
        if not self._writer.flush(_FLUSH_S):
            os._exit(code)

    def _change(self, change: StateChange) -> Callable[[], None] | None:
        """Takes a state change; returns what prints it, if anything does."""
        known = self._latest.get(change.name)
        self._latest[change.name] = change
        if self._json:
            return lambda: output.print_json({"event": "state", **_record(change)})
        if change.state is ProcessState.DIED:
            self._died.add(change.name)
            often = f" (death {change.deaths} in a row)" if change.deaths > 1 else ""
            text = f"{change.name} {change.reason}; restarting in {change.retry_in_s:g} s{often}"
        elif change.state is ProcessState.STARTING and known is None:
            text = f"{change.name} is starting"
        elif (
            change.state is ProcessState.SERVING
            and change.name in self._died
            # One that died again and again has recovered only after it ran for a while.
            and change.deaths <= 1
        ):
            self._died.discard(change.name)
            text = f"{change.name} is serving again, pid {change.pid}"
        else:
            return None
        return lambda: output.print_note(text)

    def _scaled(self, event: ScalingEvent) -> None:
        if self._json:
            record = {"from": event.before, "to": event.after, "lag": event.lag}
            output.print_json({"event": "scale", **record, "reason": event.reason})
        else:
            output.print_note(f"workers: {event.before} -> {event.after}; {event.reason}")

    def _ready(
        self,
        address: str,
        changes: Sequence[StateChange],
        metrics: Mapping[str, MetricsEndpoint],
        http_address: str,
        targets: Path | None,
    ) -> None:
        if self._json:
            for change in changes:
                found = metrics.get(change.name)
                more = {} if found is None else {"metrics_port": found.port}
                output.print_json({"event": "process", **_record(change), **more})
            http = {"http": http_address} if http_address else {}
            found_in = {"metrics_targets": str(targets)} if targets else {}
            output.print_json({"event": "ready", "address": address, **http, **found_in})
            return
        columns = ["name", "address", "pid", "state"]
        rows = [[c.name, c.address, str(c.pid), c.state.value] for c in changes]
        if metrics:
            columns.append("metrics")
            rows = [[*row, str(m.port) if (m := metrics.get(row[0])) else ""] for row in rows]
        output.print_table(columns, rows)
        print_doors(address, http_address)
        if targets is not None:
            output.print_note(f"metrics: {targets} lists the endpoints (file_sd of Prometheus)")


def _record(change: StateChange) -> dict[str, object]:
    record: dict[str, object] = {
        "name": change.name,
        "address": change.address,
        "pid": change.pid,
        "state": change.state.value,
    }
    if change.reason:
        record |= {
            "reason": change.reason,
            "retry_in_s": change.retry_in_s,
            "deaths": change.deaths,
        }
    return record
