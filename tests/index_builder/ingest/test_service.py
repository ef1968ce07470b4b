"""Arguments that the service refuses before it asks the queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from index_builder.ingest.service import IngestService
from nearline.errors import InvalidRequest


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("collection", lambda service: service.jobs(collection="a/b")),
        ("tenant", lambda service: service.jobs(tenant="t" * 129)),
        ("callback_id", lambda service: service.jobs(callback_id="t" * 513)),
        ("tenant", lambda service: service.dead_letters(tenant="t" * 129)),
        ("job_id", lambda service: service.dead_letters(job_id="a b")),
        ("job_id", lambda service: service.requeue(["1-1"], job_id="?")),
    ],
)
async def test_an_argument_that_cannot_match_is_refused_and_named(
    field: str, call: Callable[[IngestService], Awaitable[Any]]
) -> None:
    service = IngestService(cast(Any, None), cast(Any, None), 60.0)
    with pytest.raises(InvalidRequest) as caught:
        await call(service)
    assert caught.value.field == field
