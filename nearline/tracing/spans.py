"""Spans of the call that runs now, if it is recorded.

Most calls are not. For them, a context variable holds at most the header that they pass on, and a
stage costs two reads of it, about 0.2 µs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from enum import IntEnum
from itertools import islice
from typing import Final, TypeAlias

from nearline.tracing.trace_context import SpanReference, format_traceparent, new_span_id

Scalar: TypeAlias = str | bool | int | float
# Of one call in one process; further spans are not recorded.
MAX_SPANS: Final = 512
# Of one span.
_MAX_EVENTS: Final = 32
_MAX_LINKS: Final = 32
_MAX_TEXT: Final = 256


class SpanKind(IntEnum):
    """Kinds of spans; names and numbers are those of OTLP."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    CONSUMER = 5


class _Recording:
    """State that the spans of one call in this process share."""

    __slots__ = ("finish", "root", "spans_left", "trace_id")

    def __init__(self, trace_id: str, finish: Callable[[Span], None]) -> None:
        self.trace_id = trace_id
        self.finish = finish
        self.spans_left = MAX_SPANS
        self.root: Span


class Span:
    """A part of a recorded call.

    Attributes and events must hold no personal data: no texts, ids of users or items, keys or
    values of filters, and no messages of errors, which may quote them.

    name: What was done. parent_id: The span that it is part of; empty for none. start_ns, end_ns:
    Nanoseconds since 1970; end_ns is 0 while it runs. error: Code of the error with which it
    ended; empty for none. events: Times, names and attributes. links: Spans of other traces.
    """

    __slots__ = (
        "_recording",
        "attributes",
        "end_ns",
        "error",
        "events",
        "kind",
        "links",
        "name",
        "parent_id",
        "span_id",
        "start_ns",
    )

    def __init__(
        self, recording: _Recording, name: str, kind: SpanKind, parent_id: str, start_ns: int
    ) -> None:
        self._recording = recording
        self.name = name
        self.kind = kind
        self.parent_id = parent_id
        self.span_id = new_span_id()
        self.start_ns = start_ns
        self.end_ns = 0
        self.error = ""
        self.attributes: dict[str, Scalar] = {}
        self.events: list[tuple[int, str, dict[str, Scalar]]] = []
        self.links: list[SpanReference] = []

    @classmethod
    def begin(
        cls,
        name: str,
        kind: SpanKind,
        trace_id: str,
        parent_id: str,
        finish: Callable[[Span], None],
    ) -> Span:
        """Returns the first span of a call in this process.

        `finish` is called with each span at its end. Tasks that outlive the call see that the span
        has ended, and add nothing to it.
        """
        recording = _Recording(trace_id, finish)
        recording.root = span = cls(recording, name, kind, parent_id, time.time_ns())
        return span

    @property
    def trace_id(self) -> str:
        """The trace, 32 hexadecimal digits."""
        return self._recording.trace_id

    @property
    def root(self) -> Span:
        """The span of the whole call in this process."""
        return self._recording.root

    @property
    def traceparent(self) -> str:
        """The header that names this span."""
        return format_traceparent(self.trace_id, self.span_id, sampled=True)

    def child(
        self, name: str, kind: SpanKind = SpanKind.INTERNAL, start_ns: int = 0
    ) -> Span | None:
        """Returns a part of this span, from now on; None if the call has too many spans.

        start_ns: When it began, if earlier.
        """
        recording = self._recording
        if recording.spans_left <= 1:
            recording.root.attributes["nearline.spans_left_out"] = True
            return None
        recording.spans_left -= 1
        return Span(recording, name, kind, self.span_id, start_ns or time.time_ns())

    def record(self, name: str, seconds: float, before_s: float = 0.0) -> None:
        """Records a part of this span that has ended.

        Args:
            seconds: How long it took.
            before_s: How long ago it ended.
        """
        end_ns = time.time_ns() - int(before_s * 1e9)
        if (part := self.child(name, start_ns=end_ns - int(seconds * 1e9))) is not None:
            part.end(end_ns=end_ns)

    def set(self, attributes: Mapping[str, Scalar]) -> None:
        """Sets attributes; their names get the prefix "nearline."."""
        self.attributes |= _named(attributes)

    def event(self, name: str, attributes: Mapping[str, Scalar]) -> None:
        """Records that something happened now; attributes are named as by `set`."""
        if len(self.events) < _MAX_EVENTS:
            self.events.append((time.time_ns(), name, _named(attributes)))

    @property
    def reference(self) -> SpanReference:
        """The name of this span for others."""
        return SpanReference(self.trace_id, self.span_id, True)

    def link(self, others: Iterable[SpanReference]) -> None:
        """Names spans of other calls for which this one works, too; the first 32."""
        self.links += islice(others, _MAX_LINKS - len(self.links))

    def end(self, error: str = "", end_ns: int = 0) -> None:
        """Ends the span; later calls do nothing.

        Args:
            error: Code of an error. Optional.
            end_ns: When it ended, if earlier.
        """
        if not self.end_ns:
            self.error = error
            self.end_ns = max(self.start_ns, end_ns or time.time_ns())
            self._recording.finish(self)


def _named(attributes: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {
        f"nearline.{name}": value[:_MAX_TEXT] if isinstance(value, str) else value
        for name, value in attributes.items()
    }


# A span; or the header that a call that is not recorded passes on; or nothing is traced.
Carried: TypeAlias = Span | str | None
_current: ContextVar[Carried] = ContextVar("nearline_span", default=None)
# What runs now: read it with `carried`, which is this variable's own method, for speed.
carried = _current.get
carry = _current.set


def current_span() -> Span | None:
    """Returns the span of what runs now; None if it is not recorded."""
    found = _current.get()
    return found if found.__class__ is Span and not found.end_ns else None


def passed_on() -> str | None:
    """Returns the header with which what runs now calls other services; None for none."""
    found = _current.get()
    if found is None or found.__class__ is str:
        return found
    span = current_span()
    return None if span is None else span.traceparent


class _Stage:
    """A part of the call that runs now, as a context manager; yields its span."""

    __slots__ = ("_before", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._before: Token[Carried]

    def __enter__(self) -> Span:
        self._before = _current.set(self._span)
        return self._span

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        _current.reset(self._before)
        self._span.end("" if kind is None else kind.__name__)


class _NoStage:
    """The same for a call that is not recorded; yields None."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


_NO_STAGE: Final = _NoStage()


def stage(name: str) -> _Stage | _NoStage:
    """Returns a context manager that records its block as a part of the call that runs now.

    It yields the span, or None if the call is not recorded. Calls of other services within the
    block are parts of it. Do not yield from a generator within the block.
    """
    # Not by `current_span`: most calls end here, and this is called several times in each.
    found = _current.get()
    if found.__class__ is not Span or found.end_ns or (part := found.child(name)) is None:
        return _NO_STAGE
    return _Stage(part)


def note(attributes: Mapping[str, Scalar]) -> None:
    """Sets attributes of the call that runs now, if it is recorded; see `Span.set`."""
    if (span := current_span()) is not None:
        span.root.set(attributes)


def note_event(name: str, attributes: Mapping[str, Scalar]) -> None:
    """Records in the call that runs now that something happened; see `Span.event`."""
    if (span := current_span()) is not None:
        span.event(name, attributes)


def carry_one_of(found: Iterable[Carried], name: str) -> Span | None:
    """Lets this task work for the first of several calls that is recorded, from now on.

    Args:
        found: What each call carried.
        name: Name of the new span, which has links to those of the others.
    Returns: The span, to be ended; None if no call is recorded.
    """
    running = list(found)
    spans = [one for one in running if isinstance(one, Span) and not one.end_ns]
    part = spans[0].child(name) if spans else None
    if part is None:
        carry(next((one for one in running if isinstance(one, str)), None))
        return None
    part.link(one.reference for one in spans[1:])
    carry(part)
    return part
