"""Reports the processes of `nearline up` on the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from nearline_cli.local.autoscaler import ScalingEvent
from nearline_cli.local.processes import parse_event
from nearline_cli.local.supervisor import ProcessState, StateChange
from nearline_cli.terminal import output

_LOUD = ("warning", "error", "critical")


class ProcessReport:
    """Prints what the supervisor does, as text or JSON.

    What cannot be written, for example to a full disk, is dropped: the processes go on. If nobody
    reads any more (`nearline up | head`), the work ends as if it were interrupted.

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

    def run_until_interrupted(self, work: Coroutine[None, None, None]) -> None:
        """Runs the work that reports here; an interrupt is its normal end once everything serves.

        Raises:
            KeyboardInterrupt: It was interrupted before that.
            BrokenPipeError: Nobody reads the report any more.
        """

        async def run() -> None:
            self._work = asyncio.current_task()
            await work

        try:
            asyncio.run(run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            if self._unread is not None:
                raise self._unread from None
            if not self.is_ready:
                output.print_note("interrupted before everything served; all processes ended")
                raise KeyboardInterrupt from None

    def change(self, change: StateChange) -> None:
        """Reports a state change."""
        self._write(lambda: self._change(change))

    def scaled(self, event: ScalingEvent) -> None:
        """Reports a change of the number of workers."""
        self._write(lambda: self._scaled(event))

    def line(self, name: str, line: str) -> None:
        """Takes a log line of a process, and prints warnings and errors."""
        event = parse_event(line)
        # The reason of a failure is part of the state change, or of the error that ends `up`.
        loud = str(event.get("level")) in _LOUD and event.get("event") != "failed"
        if self._verbose or loud:
            self._write(lambda: output.print_note(f"[{name}] {line}"))

    def ready(self, address: str, metrics: Mapping[str, int] | None = None) -> None:
        """Reports that everything serves, and prints the table of addresses.

        Args:
            metrics: Ports of Prometheus endpoints by process. Optional.
        """
        self.is_ready = True
        self._write(lambda: self._ready(address, metrics or {}))

    def hint(self, text: str) -> None:
        """Prints what to do next, but not among JSON lines."""
        if not self._json:
            self._write(lambda: output.console().print(text))

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BrokenPipeError as error:
            if self._unread is None and self._work is not None:
                self._work.cancel()
            self._unread = error
        except OSError:
            return

    def _change(self, change: StateChange) -> None:
        known = self._latest.get(change.name)
        self._latest[change.name] = change
        if self._json:
            output.print_json({"event": "state", **_record(change)})
        elif change.state is ProcessState.DIED:
            self._died.add(change.name)
            often = f" (death {change.deaths} in a row)" if change.deaths > 1 else ""
            output.print_note(
                f"{change.name} {change.reason}; restarting in {change.retry_in_s:g} s{often}"
            )
        elif change.state is ProcessState.STARTING and known is None:
            output.print_note(f"{change.name} is starting")
        elif (
            change.state is ProcessState.SERVING
            and change.name in self._died
            # One that died again and again has recovered only after it ran for a while.
            and change.deaths <= 1
        ):
            self._died.discard(change.name)
            output.print_note(f"{change.name} is serving again, pid {change.pid}")

    def _scaled(self, event: ScalingEvent) -> None:
        if self._json:
            record = {"from": event.before, "to": event.after, "lag": event.lag}
            output.print_json({"event": "scale", **record, "reason": event.reason})
        else:
            output.print_note(f"workers: {event.before} -> {event.after}; {event.reason}")

    def _ready(self, address: str, metrics: Mapping[str, int]) -> None:
        changes = list(self._latest.values())
        if self._json:
            for change in changes:
                port = metrics.get(change.name)
                more = {} if port is None else {"metrics_port": port}
                output.print_json({"event": "process", **_record(change), **more})
            output.print_json({"event": "ready", "address": address})
            return
        columns = ["name", "address", "pid", "state"]
        rows = [[c.name, c.address, str(c.pid), c.state.value] for c in changes]
        if metrics:
            columns.append("metrics")
            rows = [[*row, str(metrics.get(row[0], ""))] for row in rows]
        output.print_table(columns, rows)


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
