"""Every method that returns pages keeps to the limit of its caller."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import Mock

import pytest

from index_builder.ingest import servicer as ingest
from nearline.access.limits import Limits
from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.v1 import admin_pb2, ingest_pb2, retrieval_pb2
from retrieval.router import admin_servicer as admin, servicer as retrieval

NONE: Any = Mock()


class Behind:
    """Stands for what a servicer asks; notes the size of the page, and has more than it."""

    def __init__(self) -> None:
        self.size = 0

    def __getattr__(self, name: str) -> Any:
        async def ask(*arguments: Any, page_size: int = 0, **more: Any) -> Any:
            self.size = page_size or arguments[-1]
            raise Reached

        return ask

    def snapshot_ids(self, collection: str) -> list[str]:
        return [f"20261203T00000{number}Z-abcdef" for number in range(9)]

    def manifest(self, collection: str, snapshot_id: str) -> Any:
        self.size += 1
        raise SnapshotCorrupt("it cannot be read")


class Reached(Exception):
    pass


BEHIND: Any = Behind()
# By module: its servicer, and the file of its service.
SERVICERS: dict[Any, tuple[Any, Any]] = {
    retrieval: (retrieval.RetrievalServicer(BEHIND), retrieval_pb2),
    admin: (admin.AdminServicer(BEHIND, NONE, NONE, NONE, NONE, BEHIND, NONE), admin_pb2),
    ingest: (ingest.IngestServicer(BEHIND), ingest_pb2),
}
METHODS = [
    (module, method.name, method.input_type)
    for module, (_, file) in SERVICERS.items()
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    # The size of a page of hits is k, which has a limit of its own.
    if method.name != "Search"
    and {"page_size", "page_token"} & set(method.input_type.fields_by_name)
]


@pytest.mark.parametrize(("module", "name", "message"), METHODS, ids=[one[1] for one in METHODS])
async def test_a_page_over_the_limit_is_cut(
    module: Any, name: str, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "current_limits", lambda: [("tenant 'shop'", Limits(page=7))])
    servicer, file = SERVICERS[module]
    BEHIND.size = 0
    with contextlib.suppress(Reached):
        await getattr(servicer, name)(getattr(file, message.name)(page_size=8), Mock())
    assert BEHIND.size == 7


async def test_items_read_by_id_are_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "current_limits", lambda: [("tenant 'shop'", Limits(page=1))])
    with pytest.raises(InvalidRequest, match="ids is 2, and the limit"):
        await SERVICERS[retrieval][0].GetItems(retrieval_pb2.GetItemsRequest(ids="ab"), NONE)
