"""Hostile requests to a shard server, as a router would never send them."""

from __future__ import annotations

import math
from typing import Any, cast

from nearline.internal.v1 import shard_pb2 as s
from nearline.v1 import retrieval_pb2 as r, types_pb2 as t
from tests.live.hostile.cases import OK, Case
from tests.live.hostile.known import (
    DIM,
    LIMIT,
    MB,
    PATHS,
    Known,
    equals,
    forged_watermark,
    unit,
    vector,
    with_first,
)
from tests.live.hostile.wire_bytes import nested

SEARCH, FETCH, SCAN, COUNT = (
    f"ShardService/{name}" for name in ("SearchShard", "FetchItems", "ScanItems", "CountShard")
)
LOAD, UNLOAD = "ShardService/LoadSnapshot", "ShardService/UnloadSnapshot"


def shard_cases(known: Known) -> list[Case]:
    """Returns the table."""
    where: dict[str, Any] = {"collection": "default", "snapshot_id": known.snapshot_id}

    def search(
        vectors: t.Vectors | None = None, texts: tuple[str, ...] = (), **options: object
    ) -> s.SearchShardRequest:
        given = r.SearchOptions(**({"mode": r.SEARCH_MODE_DENSE} | options))  # type: ignore[arg-type]
        return s.SearchShardRequest(**where, vectors=vectors, texts=texts, options=given)

    def good(**options: Any) -> s.SearchShardRequest:
        return search(unit(), **options)

    many = t.Vectors(data=b"\0\0\x80\x3f" * DIM * 1_025, dim=DIM)
    fetch, scan, count = s.FetchItemsRequest, s.ScanItemsRequest, s.CountShardRequest
    grouped = r.Grouping(field="kind", size=2**32 - 1)
    lexical, hybrid = r.SEARCH_MODE_LEXICAL, r.SEARCH_MODE_HYBRID
    return [
        Case("search of nothing", SEARCH, s.SearchShardRequest(), "NOT_FOUND"),
        Case("shard 2^32-1", SEARCH, s.SearchShardRequest(**where, shard=2**32 - 1), "NOT_FOUND"),
        Case("gone snapshot", SEARCH, s.SearchShardRequest(
            collection="default", snapshot_id="20200101T000000Z-abcdef"), "FAILED_PRECONDITION"),
        Case("snapshot of 1 MB", SEARCH, s.SearchShardRequest(
            collection="default", snapshot_id="x y " * (MB // 4)), "FAILED_PRECONDITION"),
        *(Case(f"collection {name}", SEARCH, s.SearchShardRequest(collection=path), "NOT_FOUND")
          for name, path in PATHS.items()),
        Case("neither vectors nor texts", SEARCH, search()),
        Case("vectors without numbers", SEARCH, search(t.Vectors())),
        Case("vectors of another dim", SEARCH, search(unit(DIM + 1)), field="vectors"),
        Case("vector with NaN", SEARCH, search(with_first(math.nan)), field="vectors"),
        Case("vector with infinity", SEARCH, search(with_first(math.inf)), field="vectors"),
        Case("vector of zeros", SEARCH, search(vector(*[0.0] * DIM)), OK),
        Case("1,025 vectors", SEARCH, search(many), field="vectors"),
        Case("2,000,000 vectors", SEARCH, lambda: search(
            t.Vectors(data=b"\0\0\x80\x3f" * DIM * (LIMIT // (4 * DIM) - 64), dim=DIM)),
             field="vectors"),
        Case("two texts for a vector", SEARCH, search(unit(), ("a", "b"), mode=hybrid),
             field="texts"),
        Case("words without texts", SEARCH, search(unit(), mode=lexical), field="texts"),
        Case("both legs without texts", SEARCH, search(unit(), mode=hybrid), field="texts"),
        Case("both legs without vectors", SEARCH, search(None, ("a",), mode=hybrid),
             field="vectors"),
        Case("vectors leg without vectors", SEARCH, search(None, ("a",)), field="vectors"),
        Case("1,025 texts", SEARCH, search(None, ("a",) * 1_025, mode=lexical), field="texts"),
        Case("text of 10 MB", SEARCH, lambda: search(None, ("x" * 10 * MB,), mode=lexical),
             field="texts[0]"),
        Case("k 0", SEARCH, good(k=0), field="options.k"),
        Case("k 2^31-1", SEARCH, good(k=2**31 - 1), field="options.k"),
        Case("k 2^32-1 exactly", SEARCH, good(k=2**32 - 1, exact=True), field="options.k"),
        Case("ef_search 2^32-1", SEARCH, good(ef_search=2**32 - 1), field="options.ef_search"),
        Case("nprobe 0", SEARCH, good(nprobe=0), field="options.nprobe"),
        Case("groups of 2^32-1", SEARCH, good(grouping=grouped), field="options.grouping.size"),
        Case("groups by an unknown attribute", SEARCH,
             good(grouping=r.Grouping(field="nobody", size=1))),
        Case("groups by a list", SEARCH, good(grouping=r.Grouping(field="tags", size=1)), OK),
        Case("unknown mode", SEARCH, good(mode=99)),
        Case("unknown payload", SEARCH, good(payload=[0])),
        Case("watermark of noise", SEARCH, good(min_watermark=b"\xff"),
             field="options.min_watermark"),
        Case("watermark of no log", SEARCH, good(min_watermark=forged_watermark()),
             "FAILED_PRECONDITION"),
        Case("filter by an unknown attribute", SEARCH,
             good(filter=equals("nobody", string_value="a"))),
        Case("1,000 x NOT", SEARCH,
             nested(s.SearchShardRequest, "options.filter", "not", 1_000)),
        Case("no ids", FETCH, fetch(**where), field="ids"),
        Case("131,073 ids", FETCH, fetch(**where, ids=["d1"] * 131_073), field="ids"),
        Case("fewer chunks than ids", FETCH, fetch(**where, ids=["d1", "d2"], chunks=[0]),
             field="chunks"),
        Case("chunk 2^32-1", FETCH, fetch(**where, ids=["d1"], chunks=[2**32 - 1]), OK),
        Case("id of 1 MB", FETCH, fetch(**where, ids=["x" * MB]), OK),
        Case("fetch of an unknown part", FETCH,
             fetch(**where, ids=["d1"], payload=cast(Any, [99]))),
        Case("fetch at a forged watermark", FETCH,
             fetch(**where, ids=["d1"], min_watermark=b"x"), field="min_watermark"),
        Case("scan of none", SCAN, scan(**where), field="limit"),
        Case("scan of 2^32-1", SCAN, scan(**where, limit=2**32 - 1), field="limit"),
        Case("scan after 1 MB", SCAN, scan(**where, limit=1, after_id="x" * MB), OK),
        Case("scan under NaN", SCAN,
             scan(**where, limit=1, filter=equals("price", double_value=math.nan))),
        Case("count of an unknown attribute", COUNT, count(**where, fields=["nobody"])),
        Case("count of an attribute of 16 MB", COUNT,
             lambda: count(**where, fields=["x" * 16 * MB])),
        Case("count of 33 attributes", COUNT, count(**where, fields=["kind"] * 33),
             field="fields"),
        Case("count of a gone snapshot", COUNT, count(collection="default", snapshot_id="x"),
             "FAILED_PRECONDITION"),
        *(Case(f"load from a collection {name}", LOAD, s.LoadSnapshotRequest(
            collection=path, snapshot_id=known.snapshot_id)) for name, path in PATHS.items()),
        Case("load of a path", LOAD, s.LoadSnapshotRequest(
            collection="default", snapshot_id="../../../etc/passwd")),
        Case("load of an unknown snapshot", LOAD, s.LoadSnapshotRequest(
            collection="default", snapshot_id="20200101T000000Z-abcdef"), "NOT_FOUND"),
        Case("load of nothing", LOAD, s.LoadSnapshotRequest()),
        Case("unload of a path", UNLOAD, s.UnloadSnapshotRequest(collection="../x"), OK),
        Case("message of 64 MiB", FETCH, lambda: fetch(**where, ids=["x" * LIMIT]),
             "RESOURCE_EXHAUSTED", "larger than max", by_grpc=True),
    ]  # fmt: skip
