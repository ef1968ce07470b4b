"""The span of the call that runs now, if it is recorded: one of OpenTelemetry's.

Most calls are not. For them, a context variable holds at most the header that they pass on, and a
stage costs two reads of it, about 0.2 µs: OpenTelemetry's own context takes ten times that, and its
packages are imported only where calls are recorded.

Attributes and events must hold no personal data: no texts, ids of users or items, keys or values of
filters, and no messages of errors, which may quote them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from nearline.tracing.trace_context import TRACEPARENT, format_traceparent, parse_traceparent

if TYPE_CHECKING:
    from nearline.tracing.tracer import Span as Span, Tracer
else:
    Span = Any

Scalar: TypeAlias = str | bool | int | float
# A span; or the header that a call that is not recorded passes on; or nothing is traced.
Carried: TypeAlias = "Span | str | None"
# For the spans that wait when a process ends.
_FLUSH_S: Final = 2.0
_tracer: Tracer | None = None
_current: ContextVar[Carried] = ContextVar("nearline_span", default=None)
# What runs now: read it with `carried`, which is this variable's own method, for speed.
carried = _current.get
carry = _current.set


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
    from nearline.tracing.tracer import BatchedSpans, SpanExporter, Tracer, resource_of

    spans = BatchedSpans(SpanExporter(endpoint))
    use_tracer(Tracer(share, spans, resource_of(f"nearline-{section.replace('_', '-')}")))
    try:
        yield
    finally:
        use_tracer(None)
        await asyncio.to_thread(spans.close, _FLUSH_S)


def use_tracer(tracer: Tracer | None) -> None:
    """Records calls of this process from now on; None records none."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    """Returns whether calls may be recorded."""
    return _tracer is not None


def begin_call(name: str, metadata: Callable[[], Iterable[Any] | None]) -> Span | None:
    """Begins a call of gRPC in the current task; returns its span, None if it is not recorded.

    metadata: Returns the metadata of the call; not called while nothing is traced.
    """
    if _tracer is None:
        return None
    found = (value for key, value in metadata() or () if key == TRACEPARENT)
    return _carry(_tracer.begin(name, next(found, None), "SERVER"))


def begin_request(name: str, traceparent: str | None) -> Span | None:
    """Begins a request of HTTP in the current task; as `begin_call`."""
    return None if _tracer is None else _carry(_tracer.begin(name, traceparent, "SERVER"))


def begin_work(name: str, traceparents: Iterable[str]) -> Span | None:
    """Begins work that earlier calls left in a queue, in the current task; as `begin_call`.

    traceparents: Headers that those calls left with it. The work is a part of the first one that is
        valid, and has links to the others.
    """
    if _tracer is None:
        return None
    found = {one: parsed for one in traceparents if (parsed := parse_traceparent(one))}
    links = list(found.values())[1:]
    return _carry(_tracer.begin(name, next(iter(found), None), "CONSUMER", links))


def _carry(begun: Span | str) -> Span | None:
    carry(begun)
    return None if isinstance(begun, str) else begun


def current_span() -> Span | None:
    """Returns the span of what runs now; None if it is not recorded, or has ended."""
    found = _current.get()
    if found is None or isinstance(found, str):
        return None
    return found if found.is_recording() else None


def trace_id_of(span: Span) -> str:
    """Returns the trace of a span, 32 hexadecimal digits."""
    return f"{span.get_span_context().trace_id:032x}"


def traceparent_of(span: Span) -> str:
    """Returns the header that names a span."""
    return format_traceparent(
        trace_id_of(span), f"{span.get_span_context().span_id:016x}", sampled=True
    )


def passed_on() -> str | None:
    """Returns the header with which what runs now calls other services; None for none."""
    found = _current.get()
    if found is None or isinstance(found, str):
        return found
    return traceparent_of(found) if found.is_recording() else None


def child_of(
    span: Span, name: str, kind: str = "INTERNAL", others: Iterable[Span] = (), start_ns: int = 0
) -> Span | None:
    """Returns a part of a span, from now on; None while this process ends.

    Args:
        span, name: The span, and the name of the part.
        kind: Name of a `SpanKind`.
        others: Spans of other calls for which it works, too.
        start_ns: When it began, if earlier.
    """
    if _tracer is None:
        return None
    links = (one.get_span_context() for one in others)
    return _tracer.start(name, span.get_span_context(), kind, links, start_ns or None)


def end_span(span: Span, error: str = "", end_ns: int = 0) -> None:
    """Ends a span; later calls do nothing.

    Args:
        span: The span.
        error: Code of an error. Optional.
        end_ns: When it ended, if earlier.
    """
    if span.is_recording():
        from nearline.tracing.tracer import end_span as end

        end(span, error, end_ns or None)


def set_facts(span: Span, facts: Mapping[str, Scalar]) -> None:
    """Sets attributes of a span; their names get the prefix "nearline."."""
    if span.is_recording():
        span.set_attributes(_named(facts))


def record_part(span: Span, name: str, seconds: float, before_s: float = 0.0) -> None:
    """Records a part of a span that has ended.

    Args:
        span, name: The span, and the name of the part.
        seconds: How long it took.
        before_s: How long ago it ended.
    """
    end_ns = time.time_ns() - int(before_s * 1e9)
    if (part := child_of(span, name, start_ns=end_ns - int(seconds * 1e9))) is not None:
        end_span(part, end_ns=end_ns)


def note(facts: Mapping[str, Scalar]) -> None:
    """Sets attributes of what runs now, if it is recorded; see `set_facts`."""
    if (span := current_span()) is not None:
        set_facts(span, facts)


def note_event(name: str, facts: Mapping[str, Scalar]) -> None:
    """Records that something happened in what runs now, if that is recorded; see `set_facts`."""
    if (span := current_span()) is not None:
        span.add_event(name, _named(facts))


def _named(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {f"nearline.{name}": value for name, value in facts.items()}


_NO_STAGE: Final = contextlib.nullcontext()


def stage(name: str) -> AbstractContextManager[Span | None]:
    """Returns a context manager that records its block as a part of the call that runs now.

    It yields the span, or None if the call is not recorded. Calls of other services within the
    block are parts of it. Do not yield from a generator within the block.
    """
    # Not by `current_span`: most calls end here, and this is called several times in each.
    found = _current.get()
    if found is None or found.__class__ is str:
        return _NO_STAGE
    return _NO_STAGE if (span := current_span()) is None else _recorded(span, name)


@contextlib.contextmanager
def _recorded(span: Span, name: str) -> Iterator[Span | None]:
    part = child_of(span, name)
    if part is None:
        yield None
        return
    before, error = carry(part), ""
    try:
        yield part
    except BaseException as failure:
        # Its text may be personal.
        error = type(failure).__name__
        raise
    finally:
        _current.reset(before)
        end_span(part, error)


def carry_one_of(found: Iterable[Carried], name: str) -> Span | None:
    """Lets this task work for the first of several calls that is recorded, from now on.

    Args:
        found: What each call carried.
        name: Name of the new span, which has links to those of the others.
    Returns: The span, to be ended; None if no call is recorded.
    """
    running = list(found)
    spans = [one for one in running if one and not isinstance(one, str) and one.is_recording()]
    part = child_of(spans[0], name, others=spans[1:]) if spans else None
    carry(part or next((one for one in running if isinstance(one, str)), None))
    return part
