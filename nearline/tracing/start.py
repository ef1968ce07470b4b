"""Starts and ends the tracing of a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from nearline.tracing.tracer import Tracer, use_tracer

# For the spans that wait when a process ends.
_FLUSH_S: Final = 2.0


@contextlib.asynccontextmanager
async def traced_calls(endpoint: str, share: float, section: str) -> AsyncIterator[None]:
    """Records calls of this process within the block, and sends what waits at its end.

    Args:
        endpoint: See `SpanExporter`; empty records nothing, and imports nothing.
        share: Share of the calls that are recorded, 0..1.
        section: Section of the settings of the process, such as "retrieval".
    Raises: SettingsError: the endpoint is not valid.
    """
    if not endpoint:
        yield
        return
    from nearline.tracing.span_exporter import SpanExporter

    exporter = SpanExporter(endpoint, f"nearline-{section.replace('_', '-')}")
    use_tracer(Tracer(share, exporter.add))
    try:
        yield
    finally:
        use_tracer(None)
        await asyncio.to_thread(exporter.close, _FLUSH_S)
