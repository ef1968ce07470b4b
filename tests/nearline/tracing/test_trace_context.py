"""The header `traceparent`."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nearline.tracing.trace_context import (
    format_traceparent,
    new_span_id,
    new_trace_id,
    parse_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("sampled", [False, True])
def test_a_header_names_the_span_that_it_was_made_of(sampled: bool) -> None:
    trace_id, span_id = new_trace_id(), new_span_id()
    header = format_traceparent(trace_id, span_id, sampled=sampled)
    assert parse_traceparent(header) == (trace_id, span_id, sampled)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01-{'x' * 10_000}",
        f"00-{TRACE}-{SPAN}-01".encode(),
        None,
        7,
    ],
)
def test_other_headers_are_ignored(header: object) -> None:
    assert parse_traceparent(header) is None


def test_the_flags_are_bits_and_later_versions_may_say_more() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-03") == (TRACE, SPAN, True)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-02") == (TRACE, SPAN, False)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == (TRACE, SPAN, True)


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    parse_traceparent(text)
