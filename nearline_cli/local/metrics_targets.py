"""The file by which Prometheus discovers the processes of `nearline up`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nearline_cli.local.machine_folder import machine_folder
from nearline_cli.local.metrics_ports import MetricsEndpoint
from nearline_cli.local.process_plan import Layout, ProcessPlan
from nearline_cli.local.supervisor import ProcessState, StateChange

_JOB = "nearline"


class MetricsTargets:
    """Keeps a file in the format of Prometheus's `file_sd_configs`, with a target per process.

    A process is listed once it has served, and until it is stopped: one that died stays listed, so
    that Prometheus sees that it is down.

    Args:
        file: The file, replaced atomically.
        host: Address of the endpoints.
        endpoints: Endpoints by name of the process; they may grow.
        warn: Called once with a message if the file cannot be written; the processes go on.
    """

    def __init__(
        self,
        file: Path,
        host: str,
        endpoints: Mapping[str, MetricsEndpoint],
        warn: Callable[[str], None],
    ) -> None:
        self._file = file
        self._host = f"[{host}]" if ":" in host else host
        self._endpoints = endpoints
        self._warn = warn
        self._listed: dict[str, MetricsEndpoint] = {}
        self._failed = False

    def change(self, change: StateChange) -> None:
        """Takes a state change of a process."""
        endpoint = self._endpoints.get(change.name)
        if endpoint is None:
            return
        if change.state is ProcessState.SERVING and change.name not in self._listed:
            self._listed[change.name] = endpoint
        elif change.state is ProcessState.STOPPED and change.name in self._listed:
            del self._listed[change.name]
        else:
            return
        self._write()

    @property
    def file(self) -> Path | None:
        """The absolute path of the file; None if there is no endpoint, or it cannot be written."""
        return self._file.absolute() if self._endpoints and not self._failed else None

    def remove(self) -> None:
        """Removes the file."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        groups = [
            {
                "targets": [f"{self._host}:{endpoint.port}"],
                "labels": {"job": _JOB, "service": endpoint.service, "process": name},
            }
            for name, endpoint in sorted(self._listed.items())
        ]
        partial = self._file.with_suffix(".partial")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(groups, indent=2) + "\n", "utf-8")
            os.replace(partial, self._file)
            self._failed = False
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if self._failed:
                return
            self._failed = True
            self._warn(
                f"Prometheus cannot discover all processes: {self._file} cannot be written "
                f"({error.strerror}); make its folder writable or free some space, and start "
                "again; or leave the file out with --metrics-port off"
            )


@contextlib.contextmanager
def metrics_targets(
    processes: ProcessPlan, layout: Layout, warn: Callable[[str], None]
) -> Iterator[MetricsTargets]:
    """Keeps the file of one `nearline up` for the duration of the block, then removes it.

    It is in the folder `.metrics` of the store, see `machine_folder`, and has the name of the
    router's port: several may serve one store.

    Args:
        processes, layout: What runs; without endpoints, there is no file.
        warn: See `MetricsTargets`.
    """
    router = processes.address.rpartition(":")[2]
    file = machine_folder(layout.store.files, "metrics") / f"{router}.json"
    host = layout.metrics.host if layout.metrics else ""
    targets = MetricsTargets(file, host, processes.metrics, warn)
    try:
        yield targets
    finally:
        targets.remove()
