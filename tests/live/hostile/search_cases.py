"""Hostile searches, reads, lists and counts."""

from __future__ import annotations

import base64
import json
import math

from nearline.v1 import retrieval_pb2 as r, types_pb2 as t
from tests.live.hostile.cases import OK, Case
from tests.live.hostile.known import (
    AFTER_YEAR_9999,
    BEFORE_YEAR_1,
    DIM,
    LIMIT,
    MANY_NANOS,
    MB,
    PATHS,
    YEAR_9999,
    Known,
    all_of,
    equals,
    forged_watermark,
    not_of,
    one_of,
    unit,
    vector,
    with_first,
)
from tests.live.hostile.wire_bytes import nested, raw

S, B = "RetrievalService/Search", "RetrievalService/SearchBatch"
GET, LIST, COUNT = (f"RetrievalService/{name}" for name in ("GetItems", "ListItems", "CountItems"))
NAN, INF = math.nan, math.inf


def search(**options: object) -> r.SearchRequest:
    """Returns a good query with these options."""
    made = r.SearchOptions(**options)  # type: ignore[arg-type]
    return r.SearchRequest(query=r.Query(vector=unit()), options=made)


def _boost(**fields: object) -> r.Boost:
    """Returns a boost by the number of items, with these fields."""
    values = {"growth": r.BoostGrowth(pivot=1.0)} if set(fields) <= {"weight"} else {}
    return r.Boost(field="n", **values, **fields)  # type: ignore[arg-type]


def queried(query: t.Vectors | str | list[str], **options: object) -> r.SearchRequest:
    """Returns a search by this vector, text or example items."""
    made = r.SearchOptions(**options)  # type: ignore[arg-type]
    if isinstance(query, str):
        return r.SearchRequest(query=r.Query(text=query), options=made)
    if isinstance(query, list):
        return r.SearchRequest(query=r.Query(items=r.ItemIds(ids=query)), options=made)
    return r.SearchRequest(query=r.Query(vector=query), options=made)


def batch(count: int, **options: object) -> r.SearchBatchRequest:
    """Returns many good queries with these options."""
    made = r.SearchOptions(**options)  # type: ignore[arg-type]
    return r.SearchBatchRequest(queries=[r.Query(vector=unit())] * count, options=made)


def filtered(condition: t.Filter) -> r.SearchRequest:
    """Returns a good query under a filter."""
    return search(filter=condition)


def token(*parts: object) -> str:
    """Returns a forged page token of these parts."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def search_cases(known: Known) -> list[Case]:
    """Returns the table."""
    return [*_queries(), *_options(known), *_filters(), *_reads(known)]


def _queries() -> list[Case]:
    big = "x" * (LIMIT - 100)
    return [
        Case("no query", S, r.SearchRequest()),
        Case("empty text", S, queried("")),
        Case("only white space", S, queried("\0 \t\u2028".replace("\0", " "))),
        Case("text of 32,769 characters", S, queried("x" * 32_769)),
        Case("text of almost 64 MiB", S, lambda: queried(big)),
        Case("text of 64 MiB", S, lambda: queried(big + "x" * 200), "RESOURCE_EXHAUSTED",
             "larger than max", by_grpc=True),
        Case("text, but no model", S, queried("x", mode=r.SEARCH_MODE_DENSE)),
        Case("vector without numbers", S, queried(t.Vectors())),
        Case("vector of dim 0", S, queried(t.Vectors(data=b"\0\0\0\0"))),
        Case("vector of another dim", S, queried(unit(DIM + 1))),
        Case("vector of 65,536 numbers", S, queried(unit(65_536))),
        Case("vector of 2^32-1 numbers", S, queried(t.Vectors(data=b"\0" * 32, dim=2**32 - 1))),
        Case("vector of almost 64 MiB", S,
             lambda: queried(t.Vectors(data=b"\0" * (LIMIT - 256), dim=LIMIT // 4 - 64))),
        Case("two vectors", S, queried(vector(*[1.0] * 2 * DIM, dim=DIM))),
        Case("half a number", S, queried(t.Vectors(data=b"\0" * 31, dim=DIM))),
        Case("unknown format of numbers", S,
             queried(t.Vectors(data=b"\0" * 32, dim=DIM, dtype=99))),  # type: ignore[arg-type]
        Case("NaN", S, queried(with_first(NAN))),
        Case("infinity", S, queried(with_first(INF))),
        Case("minus infinity", S, queried(with_first(-INF))),
        Case("half precision NaN", S,
             queried(t.Vectors(data=b"\0\x7e" * DIM, dim=DIM, dtype=t.DATA_TYPE_F16))),
        Case("zeros", S, queried(vector(*[0.0] * DIM))),
        Case("minus zeros", S, queried(vector(*[-0.0] * DIM))),
        Case("denormal numbers", S, queried(vector(*[1e-42] * DIM)), OK),
        Case("the largest numbers", S, queried(vector(*[3.4e38] * DIM)), OK),
        Case("no example", S, queried([])),
        Case("unknown examples", S, queried(["nobody"]), "NOT_FOUND"),
        Case("empty example", S, queried([""])),
        Case("257 examples", S, queried(["d1"] * 257)),
        Case("example of 1 MB", S, queried(["x" * MB]), "NOT_FOUND"),
        Case("example with a NUL", S, queried(["d1\0"]), "NOT_FOUND"),
        Case("no queries", B, batch(0)),
        Case("1,025 queries", B, batch(1_025)),
        Case("500,000 empty queries", B, lambda: b"\x12\0" * 500_000),
        *(Case(f"collection {name}", S, r.SearchRequest(collection=path))
          for name, path in PATHS.items()),
        Case("collection of 60 MB", S, lambda: r.SearchRequest(
            collection="a" * 60 * MB, query=r.Query(vector=unit()))),
        Case("unknown collection", S,
             r.SearchRequest(collection="nobody", query=r.Query(vector=unit())), "NOT_FOUND"),
        Case("collection of 60 MB of quotes", S, lambda: r.SearchRequest(
            collection="'\"" * 30 * MB, query=r.Query(vector=unit()))),
    ]  # fmt: skip


def _options(known: Known) -> list[Case]:
    grouped = r.Grouping(field="kind", size=100)
    return [
        Case("k 0", S, search(k=0), field="options.k"),
        Case("k 10,001", S, search(k=10_001), field="options.k"),
        Case("k 2^31-1", S, search(k=2**31 - 1), field="options.k"),
        Case("k -1 on the wire", S,
             search().SerializeToString() + raw(r.SearchRequest, "options.k", -1),
             field="options.k"),
        Case("k 10,000", S, search(k=10_000), OK),
        Case("1,024 x k 10,000", B, batch(1_024, k=10_000), field="options.k"),
        Case("1,024 x k 10,000 x groups of 100", B,
             batch(1_024, k=10_000, grouping=grouped), field="options.k"),
        Case("10,000 groups of 2", S,
             search(k=10_000, grouping=r.Grouping(field="kind", size=2)), field="options.k"),
        Case("groups of 2^32-1", S, search(grouping=r.Grouping(field="kind", size=2**32 - 1))),
        Case("groups by nothing", S, search(grouping=r.Grouping())),
        Case("groups by an unknown attribute", S, search(grouping=r.Grouping(field="nobody"))),
        Case("groups by an attribute of 16 MB", S,
             lambda: search(grouping=r.Grouping(field="x" * 16 * MB))),
        Case("groups by a list", S, search(grouping=r.Grouping(field="tags"))),
        Case("groups and diversity", S,
             search(diversity=0.5, grouping=r.Grouping(field="kind"))),
        Case("unknown mode", S, search(mode=99)),
        Case("unknown level", S, search(level=99)),
        Case("unknown payload", S, search(payload=[99])),
        Case("payload 0", S, search(payload=[0])),
        Case("words without words", S, search(mode=r.SEARCH_MODE_LEXICAL), "UNIMPLEMENTED"),
        Case("ef_search 0", S, search(ef_search=0)),
        Case("ef_search 2^32-1", S, search(ef_search=2**32 - 1)),
        Case("nprobe 0", S, search(nprobe=0)),
        Case("nprobe 2^32-1", S, search(nprobe=2**32 - 1)),
        Case("min_score NaN", S, search(min_score=NAN)),
        Case("min_score infinite", S, search(min_score=INF)),
        Case("diversity NaN", S, search(diversity=NAN)),
        Case("diversity -1", S, search(diversity=-1.0)),
        Case("diversity 1e308", S, search(diversity=1e308)),
        Case("dense_weight NaN", S, search(dense_weight=NAN)),
        Case("dense_weight 2", S, search(dense_weight=2.0)),
        Case("passage of 2^32-1", S, search(highlight=r.Highlighting(passage_chars=2**32 - 1))),
        Case("passage of the default length", S, search(highlight=r.Highlighting()), OK),
        Case("17 boosts", S, search(boosts=[_boost(weight=1.0)] * 17)),
        Case("a boost of nothing", S, search(boosts=[r.Boost(field="n")])),
        Case("boost weight NaN", S, search(boosts=[_boost(weight=NAN)])),
        Case("boost weight 1e308", S, search(boosts=[_boost(weight=1e308)])),
        Case("boost pivot NaN", S, search(boosts=[_boost(growth=r.BoostGrowth(pivot=NAN))])),
        Case("boost scale infinite", S, search(boosts=[_boost(decay=r.BoostDecay(scale=INF))])),
        Case("boost of a million values", S, search(boosts=[_boost(any_of=r.BoostAnyOf(
            values=[t.Value(int_value=1)] * 1_000_000))])),
        Case("boost of a list", S, search(boosts=[_boost(any_of=r.BoostAnyOf(
            values=[t.Value(list_value=t.ValueList(values=[t.Value()]))]))])),
        Case("boost shape 9", S, search(boosts=[_boost(
            decay=r.BoostDecay(scale=1, shape=9))])),  # type: ignore[arg-type]
        Case("unit of 1 MB", S, search(unit="x" * MB)),
        Case("unknown snapshot", S, search(snapshot_id="20200101T000000Z-abcdef"),
             "FAILED_PRECONDITION"),
        Case("snapshot of a path", S, search(snapshot_id="../../etc/passwd"),
             "FAILED_PRECONDITION"),
        Case("snapshot of 1 MB", S, search(snapshot_id="x y " * (MB // 4)), "FAILED_PRECONDITION"),
        Case("watermark of noise", S, search(min_watermark=b"\xff" * 40),
             field="options.min_watermark"),
        Case("watermark of 65 partitions", S,
             search(min_watermark=forged_watermark(positions=65)), field="options.min_watermark"),
        Case("watermark of no log", S, search(min_watermark=forged_watermark()),
             "FAILED_PRECONDITION"),
        Case("watermark of another collection", S,
             search(min_watermark=known.other_watermark), "FAILED_PRECONDITION"),
        Case("watermark of a log with a long name", S,
             lambda: search(min_watermark=forged_watermark("x" * 16 * MB)), says="in parts"),
        Case("watermark far ahead", S,
             search(min_watermark=_ahead(known.watermark)), "UNAVAILABLE", timeout_s=2.0,
             waits_s=1.8),
        Case("a microsecond left", S, search(), "DEADLINE_EXCEEDED", by_grpc=None,
             timeout_s=1e-6),
        Case("a deadline in the past", S, search(), "DEADLINE_EXCEEDED", by_grpc=True,
             timeout_s=-1.0),
        Case("a deadline in three years", S, search(), OK, timeout_s=1e8),
    ]  # fmt: skip


def _ahead(watermark: bytes) -> bytes:
    from nearline.internal.v1 import change_pb2

    log_id = change_pb2.Watermark.FromString(watermark).log_id
    return forged_watermark(log_id, position=2**63)


def _filters() -> list[Case]:
    time = t.Value(time_value=YEAR_9999)
    text, year = t.Value(string_value="x"), t.Value(int_value=1)
    some = equals("kind", string_value="a")
    return [
        Case("filter without a condition", S, filtered(t.Filter())),
        Case("NOT of nothing", S, raw(r.SearchRequest, "options.filter.not", b"")),
        Case("1,000 x NOT", S, nested(r.SearchRequest, "options.filter", "not", 1_000)),
        Case("100,000 x NOT", COUNT,
             lambda: nested(r.CountItemsRequest, "filter", "not", 20_000)),
        Case("1,000 x all", S, nested(r.SearchRequest, "options.filter", "all.filters", 1_000)),
        Case("17 x NOT", S, filtered(not_of(17))),
        Case("90 x NOT", S, filtered(not_of(90))),
        Case("16,384 conditions", S, lambda: filtered(all_of(*[all_of(*[some] * 128)] * 128))),
        Case("257 parts", S, filtered(all_of(*[some] * 257))),
        Case("5 MB of conditions", S, lambda: filtered(all_of(*[some] * 300_000))),
        Case("no values", S, filtered(one_of("kind"))),
        Case("65,537 values", S, lambda: filtered(one_of("kind", *[text] * 65_537))),
        Case("values of two kinds", S, filtered(one_of("kind", text, year))),
        Case("a list among the values", S, filtered(one_of("kind", t.Value(
            list_value=t.ValueList(values=[text]))))),
        Case("value without a value", S, filtered(equals("kind"))),
        Case("attribute without a name", S, filtered(equals("", string_value="a"))),
        Case("unknown attribute", S, filtered(equals("nobody", string_value="a"))),
        Case("attribute of 3 MB", S, lambda: filtered(equals("x" * 3 * MB, string_value="a"))),
        Case("value of 3 MB of another kind", S,
             lambda: filtered(equals("year", string_value="'" * 3 * MB))),
        Case("number of NaN", S, filtered(equals("price", double_value=NAN))),
        Case("number of infinity", S, filtered(equals("price", double_value=INF))),
        Case("number 1e308 for integers", S, filtered(equals("year", double_value=1e308)), OK),
        Case("time before the year 1", S, filtered(equals("seen", time_value=BEFORE_YEAR_1))),
        Case("time after the year 9999", S, filtered(equals("seen", time_value=AFTER_YEAR_9999))),
        Case("time of two seconds of nanoseconds", S,
             filtered(equals("seen", time_value=MANY_NANOS))),
        Case("the last time of all", S, filtered(
            t.Filter(range=t.FieldRange(field="seen", lte=time, gte=t.Value(time_value={
                "seconds": -62_135_596_800})))), OK),
        Case("range without a bound", S, filtered(t.Filter(range=t.FieldRange(field="year")))),
        Case("range of texts", S, filtered(t.Filter(range=t.FieldRange(field="kind", gte=text)))),
        Case("range from NaN", S, filtered(t.Filter(
            range=t.FieldRange(field="price", gt=t.Value(double_value=NAN))))),
        Case("range of two kinds", S, filtered(t.Filter(
            range=t.FieldRange(field="year", gte=year, lt=time)))),
        Case("pattern and control characters", S,
             filtered(equals("kind", string_value="(a+)+$\0\x1b[2J\r\n')|('%00")), OK),
    ]  # fmt: skip


def _reads(known: Known) -> list[Case]:
    deep = base64.urlsafe_b64encode(b"[" * 200_000).decode()
    return [
        Case("no ids", GET, r.GetItemsRequest()),
        Case("1,025 ids", GET, r.GetItemsRequest(ids=["d1"] * 1_025)),
        Case("id of 20 KB", GET, r.GetItemsRequest(ids=["x" * 20_000]), OK),
        Case("unknown part", GET, r.GetItemsRequest(ids=["d1"], payload=[99])),  # type: ignore[list-item]
        Case("read at a forged watermark", GET,
             r.GetItemsRequest(ids=["d1"], min_watermark=b"x"), field="min_watermark"),
        Case("read from an unknown collection", GET,
             r.GetItemsRequest(ids=["d1"], collection="nobody"), "NOT_FOUND"),
        Case("page of 1,001", LIST, r.ListItemsRequest(page_size=1_001), field="page_size"),
        Case("page of 2^32-1", LIST, r.ListItemsRequest(page_size=2**32 - 1), field="page_size"),
        *(Case(f"page token {name}", LIST, r.ListItemsRequest(page_token=one), field="page_token")
          for name, one in {
              "of noise": "%%%", "of 1 MB": "A" * MB, "with a NUL": "\0", "of umlauts": "äöü",
              "of a number": token(1)[:8], "of two parts": token("a", "b"),
              "of nested lists": deep, "of half a surrogate pair": token(known.snapshot_id,
                                                                         "\ud800", ""),
              "of numbers": token(1, 2, 3), "of an object": base64.urlsafe_b64encode(
                  json.dumps({"a": 1, "b": 2, "c": 3}).encode()).decode(),
              "of a long number": base64.urlsafe_b64encode(b"[" + b"7" * 5_000 + b"]").decode(),
              "of another filter": token(known.snapshot_id, "d1", "0123456789abcdef"),
          }.items()),
        Case("page token of an unknown snapshot", LIST,
             r.ListItemsRequest(page_token=token("20200101T000000Z-abcdef", "d1", "")),
             "FAILED_PRECONDITION"),
        Case("page token of another collection", LIST,
             r.ListItemsRequest(page_token=known.other_token), "FAILED_PRECONDITION"),
        Case("page token without its filter", LIST,
             r.ListItemsRequest(page_token=known.token, filter=equals("year", int_value=1)),
             field="page_token"),
        Case("33 facets", COUNT, r.CountItemsRequest(facets=[r.Facet(field="kind")] * 33)),
        Case("facet of 2^32-1 values", COUNT,
             r.CountItemsRequest(facets=[r.Facet(field="kind", limit=2**32 - 1)])),
        Case("facet without a name", COUNT, r.CountItemsRequest(facets=[r.Facet()])),
        Case("unknown facet of 1 MB", COUNT,
             r.CountItemsRequest(facets=[r.Facet(field="x" * MB)])),
        Case("count under 64 MiB of filter", COUNT,
             lambda: raw(r.CountItemsRequest, "filter.equals.field", b"x" * (LIMIT - 100))),
    ]  # fmt: skip
