"""Errors of a router do not say where its store is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearline.clients import RetrievalClient
from nearline.errors import NearlineError
from nearline.v1 import admin_pb2, admin_pb2_grpc
from nearline_cli.local.processes import retrieval_process
from tests.retrieval.small_snapshots import documents_of, write_snapshot

pytestmark = pytest.mark.service
METHODS = [
    one
    for one in admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods
    if "collection" in one.input_type.fields_by_name
]
VALUES = {"snapshot_id": "20260101T000000Z-abcdef", "who": "me", "target": "nonesuch"}


def filled(method: Any, collection: str) -> Any:
    """Returns a request that names what there is not."""
    message = getattr(admin_pb2, method.input_type.name)(collection=collection)
    for name, value in VALUES.items():
        if name in method.input_type.fields_by_name:
            setattr(message, name, value)
    return message


async def test_no_error_of_administration_says_where_the_store_is(tmp_path: Path) -> None:
    write_snapshot(tmp_path, documents_of(np.ones((3, 4), np.float32)))
    said: dict[str, str] = {}
    async with (
        retrieval_process(tmp_path) as router,
        RetrievalClient(router.address) as client,
    ):
        stub = admin_pb2_grpc.AdminServiceStub(client.grpc_channel)
        for method in METHODS:
            for name in ("nonesuch", "default"):
                if method.name == "DropCollection" and name == "default":
                    continue
                try:
                    await client.send(getattr(stub, method.name), filled(method, name), 10)
                except NearlineError as error:
                    said[f"{method.name} {name}"] = error.message
    assert len(said) > len(METHODS)
    assert not [one for one in said.values() if str(tmp_path) in one]
    assert said["CreateCollection default"].startswith("there is a collection 'default'; choose")
    assert "no published snapshot, which has 'default'; name" in said["GetAliases nonesuch"]
