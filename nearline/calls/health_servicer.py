"""The health of a server and its services, for those who ask once and those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline.calls.outcomes import Context
from nearline.errors import NotFound, Overloaded

HEALTH_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_MOST_WATCHERS: Final = 1_024


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Reports health without waiting for a watcher.

    Each watcher receives the newest state once it has taken the one before.
    """

    def __init__(self) -> None:
        self._states: dict[str, int] = {}
        self._watchers: set[asyncio.Event] = set()
        self._draining = False

    def set(self, service: str, state: int) -> None:
        """Sets the health of a service, unless the server is draining."""
        if not self._draining and self._states.get(service) != state:
            self._states[service] = state
            for changed in self._watchers:
                changed.set()

    def drain(self) -> None:
        """Reports NOT_SERVING for all services from now on."""
        for service in self._states:
            self.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._draining = True

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        state = self._states.get(request.service)
        if state is None:
            raise NotFound(
                f"this server has no service {request.service!r}; ask for one of its own, or for "
                "an empty name"
            )
        return health_pb2.HealthCheckResponse(status=state)

    async def List(
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        found = {
            name: health_pb2.HealthCheckResponse(status=state)
            for name, state in self._states.items()
        }
        return health_pb2.HealthListResponse(statuses=found)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if len(self._watchers) >= _MOST_WATCHERS:
            raise Overloaded(
                f"{_MOST_WATCHERS:,} watches of health are open; use Check, or end some of them"
            )
        changed, told = asyncio.Event(), None
        self._watchers.add(changed)
        try:
            while True:
                changed.clear()
                state = self._states.get(
                    request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                )
                if state != told:
                    told = state
                    yield health_pb2.HealthCheckResponse(status=state)
                else:
                    await changed.wait()
        finally:
            self._watchers.discard(changed)
