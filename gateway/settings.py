"""Settings of the gateway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from nearline.calls.method_kinds import SLOW_ANSWER_MS
from nearline.settings import ListenerSettings


class GatewaySettings(ListenerSettings):
    """Settings of the gateway, section `gateway`; it keeps nothing, so run as many as you need."""

    section: ClassVar[str] = "gateway"

    port: int = Field(7706, ge=0, le=65535, description="Port of HTTP; 0 picks a free port.")
    retrieval: str = Field("127.0.0.1:7700", description="Router, host:port.")
    generation: str = Field(
        "", description="Generation service, host:port. Empty: answers are not served."
    )
    ingest: str = Field("", description="Document queue, host:port. Empty: it is not served.")
    embedding: str = Field(
        "", description="Embedding service, host:port. Empty: embeddings are not served."
    )
    timeout_s: float = Field(
        10.0,
        gt=0,
        le=3_600,
        description="Seconds for a request that names no time itself (Nearline-Timeout).",
    )
    max_timeout_s: float = Field(
        120.0, gt=0, le=86_400, description="Most seconds that a request may name."
    )
    max_body_bytes: int = Field(
        16 << 20, ge=1 << 10, le=64 << 20, description="Largest body of a request, in bytes."
    )
    max_requests: int = Field(
        1_024,
        ge=1,
        le=100_000,
        description="Requests at once; one client address has half of them. More are refused with "
        "503, except /healthz.",
    )
    allow_origins: str = Field(
        "",
        description="Comma-separated origins whose pages may call, such as https://shop.example; "
        '"*" for all. Empty: none but the gateway\'s own.',
    )
    slow_answer_ms: float = Field(
        SLOW_ANSWER_MS,
        ge=0,
        le=3_600_000,
        description="slow_request_ms for answers and tools, until the first event of a stream; 0 "
        "logs none, nor does it if slow_request_ms is 0.",
    )
    insecure: bool = Field(
        False, description="Listen on an address other than loopback without TLS."
    )

    @property
    def origins(self) -> Sequence[str]:
        """The origins whose pages may call."""
        return [one.strip() for one in self.allow_origins.split(",") if one.strip()]
