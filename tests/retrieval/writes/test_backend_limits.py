"""Changes that the backend cannot store."""

from __future__ import annotations

import pytest

from nearline import contract as c
from nearline.errors import InvalidRequest
from retrieval.changelog.records import Change
from retrieval.search.collection import ServedCollection
from tests.retrieval.writable_collection import written


@pytest.mark.parametrize("only_attributes", [False, True])
async def test_a_change_that_the_backend_cannot_store_is_rejected(only_attributes: bool) -> None:
    checked: list[tuple[str, str]] = []

    def check(served: ServedCollection, change: Change) -> None:
        checked.append((served.name, change.document_id))
        if "much" in change.attributes:
            raise InvalidRequest("too much for the backend")

    here = written(check=check)
    here.put(c.Item(id="a", text="x"), c.Item(id="b", text="x"))
    text = "" if only_attributes else "x"
    given = [
        c.Item(id="a", text=text, attributes={"much": 1}),
        c.Item(id="b", text=text, attributes={"little": 1}),
    ]
    reply = await here.writer.upsert_items(given, only_attributes=only_attributes)
    assert [one.outcome is c.WriteOutcome.REJECTED for one in reply.results] == [True, False]
    assert reply.results[0].message.endswith("too much for the backend")
    assert checked == [("default", "a"), ("default", "b")]
    assert list(await here.changes()) == ["b"]
