"""Second names open no collection in which its key has a lower right."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nearline.access.caller import Caller
from nearline.access.rights import Right
from nearline.errors import PermissionDenied
from nearline.v1 import retrieval_pb2
from retrieval.router import second_names
from retrieval.router.second_names import TakesSecondNames

SERVICE = retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"]
NAMES = {"live": "books"}


class Servicer:
    """Returns the collection of each request."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def each(requests: AsyncIterator[Any]) -> list[str]:
            return [one.request.collection async for one in requests]

        def called(request: Any) -> Any:
            return each(request) if name.endswith("Stream") else request.collection

        return called


@pytest.fixture(name="calls")
def give_calls() -> Any:
    return TakesSecondNames(Servicer(), SERVICE, lambda name: NAMES.get(name, name))


def calls_as(monkeypatch: pytest.MonkeyPatch, **rights: Right) -> None:
    by_name = {name.replace("every", "*"): right for name, right in rights.items()}
    monkeypatch.setattr(second_names, "current_caller", lambda: Caller(rights=by_name, name="k"))


async def batches(collection: str) -> AsyncIterator[retrieval_pb2.UpsertItemsStreamRequest]:
    request = retrieval_pb2.UpsertItemsRequest(collection=collection)
    yield retrieval_pb2.UpsertItemsStreamRequest(request=request)


async def test_a_key_with_a_right_of_its_own_in_the_collection_needs_that(
    calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_as(monkeypatch, every=Right.WRITE, books=Right.READ)
    assert calls.Search(retrieval_pb2.SearchRequest(collection="live")) == "books"
    refused = "needs the right 'write' in collection 'books', and 'k' has 'read'"
    with pytest.raises(PermissionDenied, match=refused):
        calls.UpsertItems(retrieval_pb2.UpsertItemsRequest(collection="live"))
    with pytest.raises(PermissionDenied, match=refused):
        await calls.UpsertItemsStream(batches("live"))


async def test_a_key_for_the_name_alone_is_enough(
    calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls_as(monkeypatch, live=Right.WRITE)
    assert calls.UpsertItems(retrieval_pb2.UpsertItemsRequest(collection="live")) == "books"
    assert await calls.UpsertItemsStream(batches("live")) == ["books"]
