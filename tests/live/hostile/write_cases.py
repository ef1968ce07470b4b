"""Hostile writes, interactions, users, recommendations and requests of operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nearline.v1 import admin_pb2 as a, release_pb2, retrieval_pb2 as r, types_pb2 as t
from tests.live.hostile.cases import OK, REJECTED, Case
from tests.live.hostile.known import (
    AFTER_YEAR_9999,
    BEFORE_1970,
    BEFORE_YEAR_1,
    DIM,
    LIMIT,
    MANY_NANOS,
    MB,
    PATHS,
    YEAR_9999,
    Known,
    equals,
    unit,
    vector,
    with_first,
)
from tests.live.hostile.wire_bytes import nested, raw

NAN, INF = math.nan, math.inf
UPSERT, DELETE = "RetrievalService/UpsertItems", "RetrievalService/DeleteItems"
STREAM, DELETIONS = f"{UPSERT}Stream", f"{DELETE}Stream"
IMPORT = "RetrievalService/ImportInteractions"
RECORD, RECOMMEND = "RetrievalService/RecordInteractions", "RetrievalService/Recommend"
USER, FORGET = "RetrievalService/GetUser", "RetrievalService/DeleteUser"
ADMIN = "AdminService/"


def item(name: str = "hostile", **fields: object) -> r.Item:
    """Returns an item; without a vector of its own it has a good one."""
    given = {"vector": unit(), "text": "text"} | fields
    return r.Item(id=name, **given)  # type: ignore[arg-type]


def upsert(*items: r.Item, **fields: object) -> r.UpsertItemsRequest:
    """Returns a request to write items."""
    return r.UpsertItemsRequest(items=items, **fields)  # type: ignore[arg-type]


def attribute(name: str, **value: object) -> r.UpsertItemsRequest:
    """Returns a request to write an item with one attribute."""
    return upsert(item(attributes={name: t.Value(**value)}))  # type: ignore[arg-type]


def interaction(**fields: object) -> r.RecordInteractionsRequest:
    """Returns a request to record one interaction."""
    given = {"item_id": "d1", "user_id": "hostile"} | fields
    return r.RecordInteractionsRequest(interactions=[r.Interaction(**given)])  # type: ignore[arg-type]


def write_cases(known: Known) -> list[Case]:
    """Returns the table of writes, interactions and recommendations."""
    return [
        *(*_items(), *_requests(), *_streams(), *_imports()),
        *(*_interactions(), *_recommendations()),
    ]


def _items() -> list[Case]:
    texts = {"collection": "texts"}
    return [
        Case("item without an id", UPSERT, upsert(item("")), REJECTED),
        Case("id of 513 bytes", UPSERT, upsert(item("x" * 513)), REJECTED),
        Case("id of 20 KB", UPSERT, upsert(item("x" * 20_000)), REJECTED),
        Case("id of 1 MB", UPSERT, upsert(item("x" * MB)), REJECTED),
        Case("item without a vector", UPSERT, upsert(r.Item(id="hostile", text="x")), REJECTED),
        Case("vector of another dim", UPSERT, upsert(item(vector=unit(DIM - 1))), REJECTED),
        Case("vector of 65,537 numbers", UPSERT, upsert(item(vector=unit(65_537))),
             field="items[0].vector"),
        Case("vector with NaN", UPSERT, upsert(item(vector=with_first(NAN))), REJECTED),
        Case("vector with infinity", UPSERT, upsert(item(vector=with_first(INF))), REJECTED),
        Case("vector of zeros", UPSERT, upsert(item(vector=vector(*[0.0] * DIM))), REJECTED),
        Case("two vectors", UPSERT,
             upsert(item(vector=vector(*[1.0] * 2 * DIM, dim=DIM))), field="items[0].vector"),
        Case("vector and model", UPSERT, upsert(item(), **texts), REJECTED),
        Case("neither text nor title", UPSERT,
             upsert(r.Item(id="hostile", text=" \n"), **texts), REJECTED),
        Case("text of 10 MB", UPSERT,
             lambda: upsert(r.Item(id="hostile", text="word. " * 1_700_000), **texts), REJECTED),
        Case("text of 10 MB in one word", UPSERT,
             lambda: upsert(r.Item(id="hostile", text="x" * 10 * MB), **texts), REJECTED),
        Case("title of 10 MB", UPSERT,
             lambda: upsert(r.Item(id="hostile", text="x", title="x" * 10 * MB), **texts),
             REJECTED),
        Case("text of 60 MB, not embedded", UPSERT,
             lambda: upsert(item(text="x" * 60 * MB)), REJECTED),
        Case("attribute with a reserved name", UPSERT,
             attribute("$time", string_value="x"), REJECTED),
        Case("attribute without a name", UPSERT, attribute("", string_value="x"), OK),
        Case("attribute of infinity", UPSERT, attribute("price", double_value=INF), REJECTED),
        Case("attribute of another kind", UPSERT, attribute("year", string_value="x"), REJECTED),
        Case("list for a single value", UPSERT, attribute("kind", list_value=t.ValueList(
            values=[t.Value(string_value="x")])), REJECTED),
        Case("list of lists", UPSERT, attribute("tags", list_value=t.ValueList(
            values=[t.Value(list_value=t.ValueList())]))),
        Case("1,000 nested lists", UPSERT, nested(
            r.UpsertItemsRequest, "items.attributes.value", "list_value.values", 1_000)),
        Case("attribute of 16 MB", UPSERT,
             lambda: attribute("kind", string_value="x" * 16 * MB), REJECTED),
        Case("20,000 new attributes", UPSERT, lambda: upsert(item(
            attributes={f"new{n}": t.Value(int_value=n) for n in range(20_000)})), OK),
        Case("attribute of 1 MB name", UPSERT, attribute("x" * MB, string_value="x"), REJECTED),
        Case("attribute before the year 1", UPSERT, attribute("seen", time_value=BEFORE_YEAR_1)),
        Case("expiry after the year 9999", UPSERT, upsert(item(expire_time=AFTER_YEAR_9999)),
             field="items[0].expire_time"),
        Case("expiry with many nanoseconds", UPSERT, upsert(item(expire_time=MANY_NANOS)),
             field="items[0].expire_time"),
    ]  # fmt: skip


def _requests() -> list[Case]:
    good = item()
    return [
        Case("no items", UPSERT, upsert(), field="items"),
        Case("1,025 items", UPSERT, upsert(*[item(f"h{n}") for n in range(1_025)]), field="items"),
        Case("an item twice", UPSERT, upsert(good, good), field="items"),
        Case("1,000,000 empty items", UPSERT, lambda: b"\x12\0" * 1_000_000, field="items"),
        Case("idempotency key of 1 MB", UPSERT, upsert(good, idempotency_key="x" * MB),
             field="idempotency_key"),
        Case("version of another item", UPSERT, upsert(good, if_versions={"other": 1}),
             field="if_versions"),
        Case("version 2^64-1", UPSERT, upsert(good, if_versions={"hostile": 2**64 - 1}), REJECTED),
        Case("time of another item", UPSERT, upsert(good, as_of={"other": YEAR_9999}),
             field="as_of"),
        Case("time before 1970", UPSERT, upsert(good, as_of={"hostile": BEFORE_1970}),
             field="as_of"),
        Case("time in the year 9999", UPSERT, upsert(good, as_of={"hostile": YEAR_9999}),
             field="as_of"),
        Case("time before the year 1", UPSERT, upsert(good, as_of={"hostile": BEFORE_YEAR_1})),
        Case("time of an item with an id of 1 MB", UPSERT,
             upsert(good, as_of={"x" * MB: BEFORE_YEAR_1})),
        Case("unknown lane", UPSERT, upsert(good, lane=99), field="lane"),
        Case("attributes with a text", UPSERT, upsert(good, only_attributes=True), REJECTED),
        Case("attributes without any", UPSERT,
             upsert(r.Item(id="d1"), only_attributes=True), REJECTED),
        *(Case(f"write to a collection {name}", UPSERT, upsert(good, collection=path))
          for name, path in PATHS.items()),
        Case("write to an unknown collection", UPSERT, upsert(good, collection="nobody"),
             "NOT_FOUND"),
        Case("deletion without ids", DELETE, r.DeleteItemsRequest(), field="ids"),
        Case("1,025 deletions", DELETE, r.DeleteItemsRequest(ids=map(str, range(1_025))),
             field="ids"),
        Case("deletion of an id of 1 MB", DELETE, r.DeleteItemsRequest(ids=["x" * MB]), REJECTED),
        Case("deletion of an empty id", DELETE, r.DeleteItemsRequest(ids=[""]), REJECTED),
        Case("deletion with a key of 1 MB", DELETE,
             r.DeleteItemsRequest(ids=["nobody"], idempotency_key="x" * MB),
             field="idempotency_key"),
        Case("deletion from a collection of a path", DELETE,
             r.DeleteItemsRequest(ids=["d1"], collection="../default")),
    ]  # fmt: skip


def _streams() -> list[Case]:
    def writes(*batches: r.UpsertItemsRequest) -> Sequence[r.UpsertItemsStreamRequest]:
        return [r.UpsertItemsStreamRequest(request=one) for one in batches]

    names = [r.DeleteItemsRequest(ids=["nobody"], collection=one) for one in ("default", "texts")]
    return [
        Case("stream that ends at once", STREAM, [], OK),
        Case("stream with an undecodable batch", STREAM, [b"\xff" * 10]),
        Case("stream without a batch", STREAM, [b""]),
        Case("stream that changes its collection", STREAM,
             writes(upsert(item()), upsert(item(), collection="texts")),
             field="request.collection"),
        Case("10,000 empty batches", STREAM, lambda: [b""] * 10_000),
        Case("batch of 64 MiB", STREAM, lambda: writes(upsert(item(text="x" * LIMIT))),
             "RESOURCE_EXHAUSTED", "larger than max", by_grpc=True),
        Case("stream to a path", STREAM, writes(upsert(item(), collection="../x"))),
        Case("deletions from two collections", DELETIONS,
             [r.DeleteItemsStreamRequest(request=one) for one in names],
             field="request.collection"),
        Case("deletions of nothing", DELETIONS, [b""]),
        Case("undecodable deletions", DELETIONS, [b"\x0a\x05\x12"]),
    ]  # fmt: skip


def _imports() -> list[Case]:
    good = {"import_id": "hostile", "user_ids": ["u"], "item_ids": ["d1"], "times_us": [1]}

    def sent(**changes: object) -> list[r.ImportInteractionsRequest]:
        batch = r.InteractionBatch(**{**good, **changes})  # type: ignore[arg-type]
        return [r.ImportInteractionsRequest(request=batch)]

    wide = {"user_ids": ["u"] * 10_001, "item_ids": ["d1"] * 10_001, "times_us": [1] * 10_001}
    return [
        Case("import that ends at once", IMPORT, [], field="request"),
        Case("undecodable import", IMPORT, [b"\xff" * 10]),
        Case("import with a broken id", IMPORT, [b"\x0a\x04\x22\x02\xff\xfe"]),
        Case("10,000 empty batches of an import", IMPORT, lambda: [b""] * 10_000,
             field="import_id"),
        Case("import of a path", IMPORT, sent(import_id="../x"), field="import_id"),
        Case("import of a name of 1 MB", IMPORT, sent(import_id="x" * MB), field="import_id"),
        Case("import into a path", IMPORT, sent(collection="../x")),
        Case("import into an unknown collection", IMPORT, sent(collection="nobody"), "NOT_FOUND"),
        Case("two imports in a stream", IMPORT, [*sent(), *sent(import_id="b")], field="request"),
        Case("import from row 2**63", IMPORT, sent(first_row=2**63), field="first_row"),
        Case("10,001 rows", IMPORT, lambda: sent(**wide), field="user_ids"),
        Case("columns of different lengths", IMPORT, sent(item_ids=["d1", "d2"]),
             field="item_ids"),
        Case("imported user of 1 MB", IMPORT, sent(user_ids=["x" * MB]), field="user_ids[0]"),
        Case("imported item without an id", IMPORT, sent(item_ids=[""]), field="item_ids[0]"),
        Case("imported kind of 1 MB", IMPORT, sent(kinds=["x" * MB]), field="kinds[0]"),
        Case("imported time in 290,000 years", IMPORT, sent(times_us=[2**63 - 1]),
             field="times_us[0]"),
        Case("imported time before the universe", IMPORT, sent(times_us=[-(2**63)]),
             field="times_us[0]"),
        Case("imported weight of nan", IMPORT, sent(weights=[float("nan")]), field="weights[0]"),
        Case("batch of 64 MiB of an import", IMPORT, lambda: sent(user_ids=["x" * LIMIT]),
             "RESOURCE_EXHAUSTED", "larger than max", by_grpc=True),
    ]  # fmt: skip


def _interactions() -> list[Case]:
    many = [r.Interaction(item_id="d1", user_id="u")] * 1_025
    field = "interactions[0]."
    return [
        Case("no interactions", RECORD, r.RecordInteractionsRequest(), field="interactions"),
        Case("1,025 interactions", RECORD, r.RecordInteractionsRequest(interactions=many),
             field="interactions"),
        Case("key of 1 MB", RECORD, r.RecordInteractionsRequest(
            interactions=many[:1], idempotency_key="x" * MB), field="idempotency_key"),
        Case("interaction of nobody", RECORD, interaction(user_id=""), field=f"{field}user_id"),
        Case("interaction without an item", RECORD, interaction(item_id=""),
             field=f"{field}item_id"),
        Case("item of 1 MB", RECORD, interaction(item_id="x" * MB), field=f"{field}item_id"),
        Case("user of 1 MB", RECORD, interaction(user_id="x" * MB), field=f"{field}user_id"),
        Case("session of 1 MB", RECORD, interaction(session_id="x" * MB),
             field=f"{field}session_id"),
        Case("kind of 1 MB", RECORD, interaction(kind="x" * MB), field=f"{field}kind"),
        Case("event of 1 MB", RECORD, interaction(event_id="x" * MB), field=f"{field}event_id"),
        Case("list of 1 MB", RECORD, interaction(list_id="x" * MB), field=f"{field}list_id"),
        Case("position without a list", RECORD, interaction(position=2**32 - 1),
             field=f"{field}position"),
        *(Case(f"weight {weight}", RECORD, interaction(weight=weight), field=f"{field}weight")
          for weight in (NAN, INF, -INF, 0.0, -1.0, 1e-300)),
        *(Case(f"interaction {name}", RECORD, interaction(time=time), field=f"{field}time")
          for name, time in {
              "in the year 9999": YEAR_9999, "after the year 9999": AFTER_YEAR_9999,
              "before 1970": BEFORE_1970, "before the year 1": BEFORE_YEAR_1,
              "with many nanoseconds": MANY_NANOS}.items()),
        Case("interactions of an unknown collection", RECORD,
             r.RecordInteractionsRequest(collection="nobody", interactions=many[:1]), "NOT_FOUND"),
        Case("interactions of a path", RECORD,
             r.RecordInteractionsRequest(collection="../x", interactions=many[:1])),
        Case("no user", USER, r.GetUserRequest(), field="user_id"),
        Case("user of 513 bytes", USER, r.GetUserRequest(user_id="x" * 513), field="user_id"),
        Case("user of a path", USER, r.GetUserRequest(user_id="u", collection="../x")),
        Case("deletion of no user", FORGET, r.DeleteUserRequest(), field="user_id"),
        Case("deletion of a user of 1 MB", FORGET, r.DeleteUserRequest(user_id="x" * MB),
             field="user_id"),
    ]  # fmt: skip


def _recommendations() -> list[Case]:
    def wanted(**fields: object) -> r.RecommendRequest:
        return r.RecommendRequest(**fields)  # type: ignore[arg-type]

    return [
        Case("list of 0", RECOMMEND, wanted(n=0), field="n"),
        Case("list of 2^32-1", RECOMMEND, wanted(n=2**32 - 1), field="n"),
        Case("list for 257 items", RECOMMEND, wanted(item_ids=["d1"] * 257), field="item_ids"),
        Case("list for an empty item", RECOMMEND, wanted(item_ids=[""]), field="item_ids"),
        Case("list without 10,001 items", RECOMMEND,
             wanted(exclude_ids=map(str, range(10_001))), field="exclude_ids"),
        Case("list for a user of 1 MB", RECOMMEND, wanted(user_id="x" * MB), field="user_id"),
        Case("list for a session of 1 MB", RECOMMEND, wanted(session_id="x" * MB),
             field="session_id"),
        Case("unknown surface", RECOMMEND, wanted(surface="nowhere"), field="surface"),
        Case("surface of 32 MB", RECOMMEND, lambda: wanted(surface="home" * 8 * MB),
             says="in parts"),
        Case("list of diversity NaN", RECOMMEND, wanted(diversity=NAN), field="diversity"),
        Case("list of diversity 2", RECOMMEND, wanted(diversity=2.0), field="diversity"),
        Case("list at a forged watermark", RECOMMEND, wanted(min_watermark=b"\xff"),
             field="min_watermark"),
        Case("list under an unknown attribute", RECOMMEND,
             wanted(filter=equals("nobody", int_value=1))),
        Case("list of a path", RECOMMEND, wanted(collection="../x")),
        Case("list with an unknown part", RECOMMEND, wanted(payload=[99]), field="payload"),
        Case("list under 1,000 x NOT", RECOMMEND,
             nested(r.RecommendRequest, "filter", "not", 1_000)),
        Case("why not an item of 1 MB", RECOMMEND, wanted(why_not_id="x" * MB),
             field="why_not_id"),
    ]  # fmt: skip


def admin_cases(known: Known) -> list[Case]:
    """Returns the table of requests of operators."""
    reads = {
        "ListSnapshots": a.ListSnapshotsRequest, "GetSnapshot": a.GetSnapshotRequest,
        "GetAliases": a.GetAliasesRequest, "GetRolloutStatus": a.GetRolloutStatusRequest,
        "PromoteSnapshot": a.PromoteSnapshotRequest, "RollbackSnapshot": a.RollbackSnapshotRequest,
        "SetTrafficSplit": a.SetTrafficSplitRequest,
    }  # fmt: skip
    split, promote = f"{ADMIN}SetTrafficSplit", f"{ADMIN}PromoteSnapshot"
    mine, forced = known.snapshot_id, release_pb2.GateVerdict(forced_because="hostile")

    def tried(share: float, **limits: float) -> a.SetTrafficSplitRequest:
        return a.SetTrafficSplitRequest(
            canary_snapshot_id=mine, canary_share=share, gate=forced,
            rollout=release_pb2.Rollout(limits=release_pb2.RolloutLimits(**limits)),
        )  # fmt: skip

    return [
        *(Case(f"{method} of a path", ADMIN + method, kind(collection="../../etc"),
               field="collection") for method, kind in reads.items()),
        *(Case(f"{method} of an unknown collection", ADMIN + method, kind(collection="nobody"),
               "NOT_FOUND") for method, kind in reads.items() if method != "PromoteSnapshot"),
        Case("snapshots by 2^32-1", f"{ADMIN}ListSnapshots",
             a.ListSnapshotsRequest(page_size=2**32 - 1), field="page_size"),
        Case("snapshots after a forged token", f"{ADMIN}ListSnapshots",
             a.ListSnapshotsRequest(page_token="zzz"), field="page_token"),
        Case("snapshots after a token of 1 MB", f"{ADMIN}ListSnapshots",
             a.ListSnapshotsRequest(page_token="2" * MB), field="page_token"),
        Case("snapshot of a path", f"{ADMIN}GetSnapshot",
             a.GetSnapshotRequest(snapshot_id="../../../etc/passwd")),
        Case("snapshot with a NUL", f"{ADMIN}GetSnapshot", a.GetSnapshotRequest(snapshot_id="\0")),
        Case("unknown snapshot", f"{ADMIN}GetSnapshot",
             a.GetSnapshotRequest(snapshot_id="20200101T000000Z-abcdef"), "NOT_FOUND"),
        Case("history of 2^32-1", f"{ADMIN}GetAliases", a.GetAliasesRequest(history=2**32 - 1),
             field="history"),
        Case("promotion of nothing", promote, a.PromoteSnapshotRequest()),
        Case("promotion of a path", promote,
             a.PromoteSnapshotRequest(snapshot_id="../x", gate=forced)),
        Case("promotion of an unknown snapshot", promote, a.PromoteSnapshotRequest(
            snapshot_id="20200101T000000Z-abcdef", gate=forced), "NOT_FOUND"),
        Case("promotion at epoch 2^64-1", promote, a.PromoteSnapshotRequest(
            snapshot_id=mine, gate=forced, expected_epoch=2**64 - 1), "ABORTED"),
        Case("promotion without the gate", promote,
             a.PromoteSnapshotRequest(snapshot_id=mine), "FAILED_PRECONDITION"),
        Case("rollback to nothing", f"{ADMIN}RollbackSnapshot", a.RollbackSnapshotRequest(),
             "NOT_FOUND"),
        Case("end of no trial", split, a.SetTrafficSplitRequest(), "NOT_FOUND"),
        *(Case(f"share of {share}", split, tried(share))
          for share in (NAN, INF, -1.0, 0.0, 1.0, 1e308)),
        Case("trial of the current snapshot", split, tried(0.5)),
        Case("trial that alarms with NaN", split, tried(0.5, false_alarm=NAN),
             field="rollout.limits.false_alarm"),
        Case("trial of infinite latency", split, tried(0.5, latency_ratio=-INF),
             field="rollout.limits.latency_ratio"),
        Case("trial split by an unknown unit", split, tried(0.5).SerializeToString() + raw(
            a.SetTrafficSplitRequest, "rollout.split_by", 99), field="rollout.split_by"),
        Case("split of a path", split, raw(
            a.SetTrafficSplitRequest, "canary_snapshot_id", b"../../x")),
    ]  # fmt: skip
