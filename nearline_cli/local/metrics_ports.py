"""Metrics ports of the processes of `nearline up`: each gets a Prometheus endpoint of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace

from nearline_cli.local.supervisor import ProcessSpec

_HIGHEST = 65_535


class MetricsPorts:
    """Assigns metrics ports; a process that is planned again keeps its port.

    Args:
        host: Address to listen on.
        first: First port to assign; 0 starts at the port in the settings of each service, and
            leaves out services that have none there.
        taken: Ports of the plan.
    """

    def __init__(self, host: str, first: int, taken: Iterable[int]) -> None:
        self._host = host
        self._first = first
        self._taken = set(taken)
        self.assigned: dict[str, int] = {}

    def assign(self, plan: ProcessSpec) -> ProcessSpec:
        """Returns the plan with a metrics port, or unchanged if it should have none."""
        port = self.assigned.get(plan.name) or self._next(plan.module)
        if not port:
            return plan
        self.assigned[plan.name] = port
        return replace(plan, arguments=(*plan.arguments, "--metrics-port", str(port)))

    def _next(self, module: str) -> int:
        configured = _configured_port(module)
        port = 0 if configured is None else self._first or configured
        while 0 < port <= _HIGHEST and (port in self._taken or not self._is_free(port)):
            port += 1
        if not 0 < port <= _HIGHEST:
            return 0
        self._taken.add(port)
        return port

    def _is_free(self, port: int) -> bool:
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            with socket.create_server((self._host, port), family=family):
                return True
        except OSError:
            return False


def _configured_port(module: str) -> int | None:
    """Returns the metrics port in the settings of a service; None for another program."""
    # Imported late: the settings of the services are slow to import.
    from nearline.settings import ListenerSettings, load_from_process
    from nearline_cli.local.service_settings import SETTINGS, settings_class

    for name, place, kind in SETTINGS:
        if name == module:
            found = settings_class(place, kind)
            assert issubclass(found, ListenerSettings)
            return load_from_process(found, ()).metrics_port
    return None
