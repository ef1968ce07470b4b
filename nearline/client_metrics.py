"""Times of the calls that this process makes to other services."""

from __future__ import annotations

from functools import lru_cache

from google.protobuf.message import Message
from prometheus_client import Histogram

# Seconds. One bucket ends at what searches promise, 50 ms: alerts and dashboards count by it.
CALL_BUCKETS = (
    *(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.064, 0.128, 0.256, 0.512),
    *(1, 2, 4, 8, 16),
)
# The protocol of routers has two files; the others have the name of their service.
_SERVICES = {"retrieval": "router", "admin": "router"}
_calls = Histogram(
    "nearline_client_call_seconds",
    "Time of a call to another service, as its caller sees it, by service called, method and gRPC "
    "status.",
    ("target", "method", "code"),
    buckets=CALL_BUCKETS,
)


def observe_call(request: type[Message], code: str, seconds: float) -> None:
    """Records a call.

    Args:
        request: Class of the request, which has the name of the method.
        code: Its gRPC status, such as "OK".
        seconds: Its duration.
    """
    file = request.DESCRIPTOR.file.name
    _calls.labels(*_names(file, request.__name__), code).observe(seconds)


@lru_cache(maxsize=256)
def _names(file: str, request: str) -> tuple[str, str]:
    """Returns the service and the method of a request, by its protocol's file and its name."""
    protocol = file.rpartition("/")[2].removesuffix(".proto")
    return _SERVICES.get(protocol, protocol), request.removesuffix("Request")
