"""Metrics ports of the processes of `nearline up`: each gets a Prometheus endpoint of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nearline.errors import SettingsError
from nearline_cli.local.processes import free_port
from nearline_cli.local.supervisor import ProcessSpec

if TYPE_CHECKING:
    from nearline.settings import ListenerSettings

_HIGHEST = 65_535
# Distance of the default of the first port from the router's: above those in `ports.OFFSETS`.
_OFFSET = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsOptions:
    """Where processes serve their metrics.

    port: First port; 0 takes those in the settings of the services, and for services without one
        there those from the 20th after the router's.
    host: Address to listen on.
    """

    port: int = 0
    host: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """A Prometheus endpoint. service: Its service, such as "router"."""

    port: int
    service: str


class MetricsPorts:
    """Assigns metrics ports; a process that is planned again keeps its port.

    Args:
        options: Where to serve metrics; None serves none, whatever the settings of services say.
        router: Port of the router; 0 for free ports where none is configured.
        taken: Ports of the plan.
    Raises: SettingsError: The address does not belong to this machine.
    """

    def __init__(self, options: MetricsOptions | None, router: int, taken: Iterable[int]) -> None:
        if options is not None:
            _check_host(options.host)
        self._options = options
        self._router = router
        self._taken = set(taken)
        self.assigned: dict[str, MetricsEndpoint] = {}

    def assign(self, plan: ProcessSpec) -> ProcessSpec:
        """Returns the plan with a metrics port; unchanged if its program has no metrics."""
        settings = _settings(plan.module)
        if settings is None:
            return plan
        if self._options is None:
            words: tuple[str, ...] = ("--metrics-port", "0") if settings.metrics_port else ()
            return replace(plan, arguments=(*plan.arguments, *words))
        known = self.assigned.get(plan.name)
        port = known.port if known else self._next(self._options, settings.metrics_port)
        # The section of routers is "retrieval", and so is that of all that they and shards do.
        service = "router" if settings.section == "retrieval" else settings.section
        self.assigned[plan.name] = MetricsEndpoint(port, service)
        words = ("--metrics-port", str(port), "--metrics-host", self._options.host)
        return replace(plan, arguments=(*plan.arguments, *words))

    def _next(self, options: MetricsOptions, configured: int) -> int:
        port = options.port or configured
        if not port:
            port = self._router + _OFFSET if self._router else free_port(options.host)
        while port <= _HIGHEST and (port in self._taken or not _is_free(options.host, port)):
            port += 1
        if port > _HIGHEST:
            port = free_port(options.host)
        self._taken.add(port)
        return port


def _check_host(host: str) -> None:
    """Checks that this machine can listen on an address; otherwise, all of its ports look taken."""
    try:
        _listen(host, 0).close()
    except OSError as error:
        raise SettingsError(
            f"--metrics-host is {host!r}, where no process can listen: {error.strerror}; name an "
            "address of this machine"
        ) from error


def _is_free(host: str, port: int) -> bool:
    try:
        _listen(host, port).close()
    except OSError:
        return False
    return True


def _listen(host: str, port: int) -> socket.socket:
    return socket.create_server(
        (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
    )


def _settings(module: str) -> ListenerSettings | None:
    """Returns the settings that a service will find; None for another program."""
    # Imported late: the settings of the services are slow to import.
    from nearline.settings import ListenerSettings, load_from_process
    from nearline_cli.local.service_settings import settings_of

    found = settings_of(module)
    if found is None:
        return None
    assert issubclass(found, ListenerSettings)
    return load_from_process(found, ())
