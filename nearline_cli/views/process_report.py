"""Reports the processes of `nearline up` on the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Mapping

from nearline_cli.local.autoscaler import ScalingEvent
from nearline_cli.local.processes import parse_event
from nearline_cli.local.supervisor import ProcessState, StateChange
from nearline_cli.terminal import output

_LOUD = ("warning", "error", "critical")


class ProcessReport:
    """Prints what the supervisor does, as text or JSON.

    is_ready: Whether everything has served at least once.
    """

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self.is_ready = False
        self._json = as_json
        self._verbose = verbose
        self._latest: dict[str, StateChange] = {}
        self._died: set[str] = set()

    def run_until_interrupted(self, work: Coroutine[None, None, None]) -> None:
        """Runs the work that reports here; an interrupt is its normal end once everything serves.

        Raises: KeyboardInterrupt: it was interrupted before that.
        """
        try:
            asyncio.run(work)
        except (KeyboardInterrupt, asyncio.CancelledError):
            if not self.is_ready:
                output.print_note("interrupted before everything served; all processes ended")
                raise KeyboardInterrupt from None

    def change(self, change: StateChange) -> None:
        """Reports a state change."""
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

    def scaled(self, event: ScalingEvent) -> None:
        """Reports a change of the number of workers."""
        if self._json:
            record = {"from": event.before, "to": event.after, "lag": event.lag}
            output.print_json({"event": "scale", **record, "reason": event.reason})
        else:
            output.print_note(f"workers: {event.before} -> {event.after}; {event.reason}")

    def line(self, name: str, line: str) -> None:
        """Takes a log line of a process, and prints warnings and errors."""
        event = parse_event(line)
        # The reason of a failure is part of the state change, or of the error that ends `up`.
        loud = str(event.get("level")) in _LOUD and event.get("event") != "failed"
        if self._verbose or loud:
            sys.stderr.write(f"[{name}] {line}\n")

    def ready(self, address: str, metrics: Mapping[str, int] | None = None) -> None:
        """Reports that everything serves, and prints the table of addresses.

        Args:
            metrics: Ports of Prometheus endpoints by process. Optional.
        """
        metrics = metrics or {}
        self.is_ready = True
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
