"""`nearline collections` declares attributes of every kind, and weights, and shows them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nearline.serving import Registration, running
from nearline.v1 import admin_pb2, admin_pb2_grpc
from tests.nearline_cli.conftest import Run

pytestmark = pytest.mark.service
KINDS = {"price": "double", "tags": "string[]", "seen": "time[]"}


class OneCollection(admin_pb2_grpc.AdminServiceServicer):
    """A router with the collection that was created last."""

    def __init__(self) -> None:
        self.found = admin_pb2.Collection()

    async def CreateCollection(
        self, request: admin_pb2.CreateCollectionRequest, context: object
    ) -> admin_pb2.CreateCollectionResponse:
        self.found = admin_pb2.Collection(
            name=request.collection,
            language="english",
            attributes=request.attributes,
            search_weights=request.search_weights,
            search_languages=request.search_languages,
            synonym_rules=sum(not line.startswith("#") for line in request.synonyms),
        )
        return admin_pb2.CreateCollectionResponse(collection=self.found)

    async def GetCollection(
        self, request: admin_pb2.GetCollectionRequest, context: object
    ) -> admin_pb2.GetCollectionResponse:
        return admin_pb2.GetCollectionResponse(collection=self.found)


async def test_attributes_and_weights_are_shown_as_they_were_declared(
    nearline: Run, tmp_path: Path
) -> None:
    rules, cycle = tmp_path / "rules.txt", tmp_path / "cycle.txt"
    rules.write_text("# of a shop\ntv, television\nnyc => new york")
    cycle.write_text("tv => television => telly")
    servicer = OneCollection()
    service = Registration(
        "nearline.v1.AdminService",
        lambda server: admin_pb2_grpc.add_AdminServiceServicer_to_server(servicer, server),
    )
    declared = [word for name, kind in KINDS.items() for word in ("--attribute", f"{name}={kind}")]
    declared += ["--search-weight", "title=2", "--search-weight", "tags=0.5"]
    declared += ["--search-language", "tags=none", "--synonyms", str(rules)]
    async with running([service]) as address:
        where = ("shop", "--address", address)

        async def said(*words: str) -> str:
            done = await asyncio.to_thread(nearline, "collections", *words)
            assert done.returncode == 0, done.stderr
            return done.stdout

        await said("create", *where, *declared)
        assert [one.is_list for one in servicer.found.attributes] == [False, True, True]
        shown = (await said("show", *where)).strip().splitlines()
        assert dict(line.split() for line in shown[-len(KINDS) :]) == KINDS
        assert dict(servicer.found.search_weights) == {"title": 2.0, "tags": 0.5}
        assert dict(servicer.found.search_languages) == {"tags": "none"}
        assert (
            "english (search weights title=2, tags=0.5) (search languages tags=none) "
            "(2 rules of synonyms)" in shown[0]
        )
        refused = await asyncio.to_thread(
            nearline, "collections", "create", *where, "--synonyms", str(cycle)
        )
        assert "cycle.txt, line 1: it has more than one =>" in refused.stderr
        refused = await asyncio.to_thread(
            nearline, "collections", "create", *where, "--search-weight", "tags:2"
        )
        assert "'tags:2' is not FIELD=WEIGHT" in refused.stderr
        refused = await asyncio.to_thread(
            nearline, "collections", "create", *where, "--search-language", "tags:none"
        )
        assert "'tags:none' is not FIELD=LANGUAGE" in refused.stderr


def test_the_help_names_kinds_of_lists(nearline: Run) -> None:
    for command in (("collections", "create"), ("build",)):
        assert "string[]" in nearline(*command, "--help").stdout
