"""Every method that returns pages keeps to the limit of its caller."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from index_builder.ingest import servicer as ingest
from nearline.access.limits import Limits
from nearline.errors import InvalidRequest
from nearline.v1 import admin_pb2, ingest_pb2, retrieval_pb2
from retrieval.router import admin_servicer as admin, servicer as retrieval

NONE: Any = Mock()
# By module: its servicer, and the file of its service.
SERVICERS: dict[Any, tuple[Any, Any]] = {
    retrieval: (retrieval.RetrievalServicer(NONE), retrieval_pb2),
    admin: (admin.AdminServicer(*[NONE] * 7), admin_pb2),
    ingest: (ingest.IngestServicer(NONE), ingest_pb2),
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
async def test_a_page_over_the_limit_is_refused(
    module: Any, name: str, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "current_limits", lambda: [("tenant 'shop'", Limits(page=7))])
    servicer, file = SERVICERS[module]
    request = getattr(file, message.name)(page_size=8)
    with pytest.raises(InvalidRequest, match="page_size is 8, and the limit of tenant 'shop' is 7"):
        await getattr(servicer, name)(request, NONE)


async def test_items_read_by_id_are_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "current_limits", lambda: [("tenant 'shop'", Limits(page=1))])
    with pytest.raises(InvalidRequest, match="ids is 2, and the limit"):
        await SERVICERS[retrieval][0].GetItems(retrieval_pb2.GetItemsRequest(ids="ab"), NONE)
