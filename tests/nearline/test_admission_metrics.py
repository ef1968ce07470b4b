"""Metrics of the turns of calls."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY

from nearline.admission import Admission


def value(name: str) -> float:
    found = REGISTRY.get_sample_value(f"nearline_server_{name}")
    assert found is not None
    return found


async def test_a_queue_that_has_emptied_is_shown_as_empty_though_no_call_begins() -> None:
    admission = Admission(2)
    # Both calls may run; a third is refused, so the limit is lowered as overload does.
    admission._limit = 1.0
    waited = value("turn_seconds_count")
    end = await admission.begin("a", None)
    second = asyncio.create_task(admission.begin("a", None))
    await asyncio.sleep(0)
    assert (value("running_calls"), value("waiting_calls")) == (1, 1)
    assert value("call_limit") == 1
    end()
    end_second = await second
    assert (value("running_calls"), value("waiting_calls")) == (1, 0)
    assert value("turn_seconds_count") == waited + 1
    end_second()
    end_stream = admission.begin_stream("a")
    assert value("running_calls") == 1
    end_stream()
    assert value("running_calls") == 0
