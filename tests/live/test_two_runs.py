"""What a tenant is told does not depend on another tenant: every public method, in two worlds.

Tenant a makes the same calls in two worlds that differ in what tenant b has. Replies, errors,
trailers, metrics, log lines and audit lines must be equal, but for what varies between any two runs
(`_VARIES`). The methods are those of the protocol: a new one gets an empty request at least, and
one that reads needs a request of its own below.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from prometheus_client.parser import text_string_to_metric_families

from nearline.channel import ServiceChannel
from nearline.status import DETAILS_KEY
from tests.live.tenant_world import Secret, TenantWorld, tenant_world
from tests.nearline.access.test_rights import SERVICES
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
FIRST = Secret("zyxquartz", "margin_q", "quillonwort")
SECOND = Secret("vellumine", "supply_c", "tamberlyne")
PUBLIC = [name for name in SERVICES if name.startswith("nearline.v1.") and "Shard" not in name]
METHODS = [method for name in PUBLIC for method in SERVICES[name].methods]
Request = Mapping[str, Any]
_X: Request = {"stringValue": "x"}


def _is(field: str) -> Request:
    return {"equals": {"field": field, "value": _X}}


def _search(**options: Any) -> Request:
    return {"query": {"text": "quiet kettle"}, "options": {"k": 20, **options}}


# Names of the first world, near those of a, or of nobody.
_NAMES = ("no_such", "margin_p", "bran")
_FIELDS = ("brand", *_NAMES)
_IDS = ["i00", "i01", "i02", "live-a", "live-b", FIRST.word, f"{FIRST.word}-queued", "none"]
_JOBS = [{"jobId": one} for one in ("alder", FIRST.word)]
REQUESTS: Mapping[str, Sequence[Request]] = {
    "Search": [
        _search(),
        _search(mode="SEARCH_MODE_LEXICAL", explain=True, highlight={"passageChars": 100}),
        _search(exact=True, diversity=0.5, plainText=True),
        _search(userId=FIRST.word, sessionId=FIRST.word, personal=1.0),
        {"query": {"items": {"ids": ["i02"]}}},
        {"query": {"text": FIRST.word}, "options": {"explain": True}},
        {"query": {"text": f'"{FIRST.word}"'}},
        *(_search(filter=_is(one)) for one in _FIELDS),
        *(_search(grouping={"field": one, "size": 1}) for one in (*_FIELDS, "readers")),
        *(_search(boosts=[{"field": one, "anyOf": {"values": [_X]}}]) for one in _FIELDS),
    ],
    "SearchBatch": [
        {"queries": [{"text": one} for one in ("kettle", FIRST.word)], "options": options}
        for options in ({}, {"filter": _is("no_such")})
    ],
    "Recommend": [
        {},
        {"userId": "alder", "explain": True, "n": 20},
        {"userId": FIRST.word, "sessionId": FIRST.word},
        {"itemIds": ["i02"], "surface": "item_page"},
        {"whyNotId": "i02"},
        {"surface": "no_such"},
        *({"filter": _is(one)} for one in _FIELDS),
    ],
    "RecordInteractions": [{"interactions": [{"itemId": one, "userId": "u"} for one in _IDS]}],
    "GetItems": [{"ids": _IDS}],
    "ListItems": [{}, *({"filter": _is(one)} for one in _FIELDS)],
    "CountItems": [
        {"facets": [{"field": "readers", "limit": 10}]},
        *({"facets": [{"field": one, "limit": 10}]} for one in _FIELDS),
        *({"filter": _is(one)} for one in _FIELDS),
    ],
    "Suggest": [
        {"text": one} for one in ("qu", "zyxquarts", "quiet zyxquart", "ketle", FIRST.word, "zy")
    ]
    + [{"text": "qu", "filter": _is(one)} for one in _FIELDS],
    "UpsertItems": [{"items": [{"id": "new", "text": "alder", "attributes": {}}]}],
    "UpsertItemsStream": [{"request": {"items": [{"id": "newer", "text": "alder"}]}}],
    "DeleteItems": [{"ids": ["new", "none"]}],
    "DeleteItemsStream": [{"request": {"ids": ["newer"]}}],
    "ImportInteractions": [
        {"request": {"importId": FIRST.word, "userIds": ["u"], "itemIds": ["i00"], "timesUs": [1]}}
    ],
    "DeleteItemsByFilter": [{"filter": _is(one), "limit": 5} for one in _NAMES],
    "SetUser": [{"userId": FIRST.word, "attributes": {"a": {"stringValue": "x"}}}],
    "GetUser": [{"userId": one} for one in ("alder", FIRST.word, f"tenant/b/{FIRST.word}")],
    "DeleteUser": [{"userId": "alder"}],
    "ListCollections": [{}, {"pageToken": FIRST.word}],
    "GetCollection": [{}],
    "GetPolicies": [{}],
    "ListSnapshots": [{}],
    "GetSnapshot": [{}],
    "GetAliases": [{"history": 10}],
    "GetServingStatus": [{}],
    "GetRolloutStatus": [{}],
    "Embed": [{"texts": ["alder", FIRST.word]}],
    "EmbedStream": [{"request": {"texts": ["alder"]}}],
    "Rerank": [{"query": "alder", "texts": ["alder"]}],
    "Entail": [{"premises": ["alder"], "hypotheses": ["alder"]}],
    "GetInfo": [{}],
    "Generate": [
        {"question": "what is a quiet kettle?"},
        {"question": f"what is {FIRST.word}?"},
        {"question": "and why?", "sessionId": FIRST.word},
        *({"question": "what is a kettle?", "filter": _is(one)} for one in _FIELDS),
    ],
    "VerifyCitation": [
        {"citations": [{"documentId": one, "snapshotId": "x", "charEnd": 3} for one in _IDS]}
    ],
    "GetSession": [{"sessionId": one} for one in ("alder", FIRST.word)],
    "DeleteSession": [{"sessionId": FIRST.word}],
    "Submit": [{"sources": [{"item": {"id": "sent", "text": "alder"}}], "jobId": "sent"}],
    "GetJob": _JOBS,
    "WatchJob": _JOBS,
    "ListJobs": [{}, {"callbackId": FIRST.word}, {"tenant": "b"}, {"collection": FIRST.collection}],
    "ListResults": _JOBS,
    "ListDeadLetters": [{"withSource": True}, *_JOBS, {"tenant": "b"}],
    "CancelJob": _JOBS,
    "RequeueDeadLetters": [{"letterIds": ["none"]}],
    "DeleteDeadLetters": [{"letterIds": ["none"]}],
    "GetQueue": [{}],
}
# Fields that vary between any two runs of one world, and why.
_VARIES = {
    # Instants, and how long something took.
    *("google.protobuf.Timestamp", "google.protobuf.Duration", "retrieval_s", "first_delta_s"),
    *("total_s", "seconds", "documents_per_s", "p50_ms", "p99_ms"),
    # Positions in the change log, whose name is random; documented: the state of all changes.
    *("watermark", "log_id", "nearline.v1.LiveStatus", "version"),
    # What SECURITY.md says that scores reflect; the order of hits is compared.
    *("score", "dense_constant"),
    # Random names.
    *("list_id", "letter_id", "worker_id", "next_page_token"),
    # What is free on this machine, and what workers said last.
    *("nearline.v1.WatchedResource", "nearline.v1.IngestWorker"),
}
# Ends of the names of metrics that are times, or that time counts: of a timer, and of changes that
# a shard follows later.
_TIMES = (
    *("_seconds_bucket", "_seconds_sum", "_created"),
    *("loop_lag_seconds_count", "changes_applied_total"),
)
_TEXTS = (
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"(?<!\.)\b[0-9a-f]{16}\b"), "REQUEST"),
    (re.compile(r"reset=[0-9.]+"), "reset"),
)


def _reads(method: Any) -> bool:
    options = descriptor_pb2.MethodOptions
    return bool(method.GetOptions().idempotency_level == options.NO_SIDE_EFFECTS)


def _plain(message: Any) -> Any:
    """Returns a message as plain values, without what varies."""
    if message.DESCRIPTOR.full_name in _VARIES:
        return "varies"
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        kind = field.message_type
        if field.name in _VARIES or (kind and kind.full_name in _VARIES):
            continue
        if kind and kind.GetOptions().map_entry:
            value = {str(key): _value(one) for key, one in sorted(value.items())}
        elif field.is_repeated:
            value = [_value(one) for one in value]
        else:
            value = _value(value)
        shown[field.name] = value
    return shown


def _value(value: Any) -> Any:
    if hasattr(value, "DESCRIPTOR"):
        return _plain(value)
    return value.hex() if isinstance(value, bytes) else value


class _Run:
    """The calls of tenant a in one world."""

    def __init__(self, world: TenantWorld) -> None:
        self._world = world
        self.told: dict[str, str] = {}

    def _text(self, value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
        text = text.replace(str(self._world.audit.parent), "FOLDER")
        for number, one in enumerate(self._world.ids):
            text = text.replace(one, f"ID{number}")
        for pattern, instead in _TEXTS:
            text = pattern.sub(instead, text)
        return text

    async def call(self, channel: Any, method: Any, request: Request) -> None:
        path = f"/{method.containing_service.full_name}/{method.name}"
        sent = json_format.ParseDict(dict(request), GetMessageClass(method.input_type)())
        reply_class = GetMessageClass(method.output_type)
        many = method.client_streaming
        replies: list[Any] = []
        call = (channel.stream_stream if many else channel.unary_stream)(path)(
            *(([sent.SerializeToString()],) if many else (sent.SerializeToString(),)), timeout=20
        )
        try:
            replies += [_plain(reply_class.FromString(one)) async for one in call]
            said: Any = {"replies": replies[-1:] if method.name == "WatchJob" else replies}
        except grpc.aio.AioRpcError as error:
            said = {"replies": replies, "code": error.code().name, "text": error.details()}
        trailers = dict(await call.trailing_metadata() or ())
        if details := trailers.pop(DETAILS_KEY, b""):
            trailers["status"] = json_format.MessageToJson(status_pb2.Status.FromString(details))
        name = f"{method.full_name} {json.dumps(request, sort_keys=True)}"
        self.told[name] = self._text(said | {"trailers": trailers})

    async def calls(self) -> None:
        async with ServiceChannel(self._world.address, token=self._world.key) as channel:
            for method in sorted(METHODS, key=lambda one: not _reads(one)):
                requests = [*REQUESTS.get(method.name, ({},))]
                message = method.input_type
                if "collection" in message.fields_by_name:
                    requests += [{"collection": FIRST.collection}, {"collection": "gone"}]
                for request in requests:
                    await self.call(channel.grpc_channel, method, request)

    async def trace(self) -> Mapping[str, str]:
        before = await asyncio.to_thread(self._metrics)
        lines = {name: len(one.log) for name, one in self._world.processes.items()}
        audited = len(self._world.audit.read_text("utf-8").splitlines())
        await self.calls()
        after = await asyncio.to_thread(self._metrics)
        for name, count in after.items():
            if change := count - before.get(name, 0):
                self.told[f"metric {name}"] = str(change)
        for name, process in self._world.processes.items():
            new = [*process.log][lines[name] :]
            self.told[f"log of {name}"] = self._text([_without_time(one) for one in new])
        for number, line in enumerate(self._world.audit.read_text("utf-8").splitlines()[audited:]):
            self.told[f"audit line {number}"] = self._text(_without_time(line))
        return self.told

    def _metrics(self) -> dict[str, float]:
        found = {}
        for name, port in self._world.metrics.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                text = reply.read().decode()
            for family in text_string_to_metric_families(text):
                # Gauges say how things are now, and for everybody.
                if family.name.startswith("nearline_") and family.type != "gauge":
                    for one in family.samples:
                        if not one.name.endswith(_TIMES):
                            found[f"{name} {one.name} {self._text(one.labels)}"] = one.value
        return found


def _without_time(line: str) -> Any:
    try:
        event = json.loads(line)
    except ValueError:
        return line
    return {key: value for key, value in event.items() if key not in ("time", "ts", "seconds")}


def test_every_method_that_reads_has_a_request() -> None:
    missing = {one.full_name for one in METHODS if _reads(one) and one.name not in REQUESTS}
    assert not missing, "add a request to REQUESTS that another tenant's data could change"
    assert REQUESTS.keys() <= {one.name for one in METHODS}


async def _told(folder: Path, secret: Secret) -> Mapping[str, str]:
    async with tenant_world(folder, secret) as world:
        return await _Run(world).trace()


async def _differences(folder: Path) -> Mapping[str, str]:
    """Returns what differs between the two worlds, by what was asked."""
    first, second = await asyncio.gather(
        _told(folder / "first", FIRST), _told(folder / "second", SECOND)
    )
    answered = {name.partition(" ")[0] for name, said in first.items() if '"code"' not in said}
    # There is no cross-encoder here.
    none = {f"nearline.v1.EmbeddingService.{name}" for name in ("Rerank", "Entail")}
    assert {one.full_name for one in METHODS if _reads(one)} - answered == none
    different = {
        name: "\n".join(unified_diff(said.splitlines(), second.get(name, "").splitlines(), n=1))
        for name, said in ({name: "" for name in second} | dict(first)).items()
    }
    return {name: change for name, change in different.items() if change}


async def test_what_a_tenant_is_told_does_not_depend_on_another(tmp_path: Path) -> None:
    told = await _differences(tmp_path / "0")
    for attempt in ("1", "2"):
        # On a busy machine a reply may be late, and say so: what differs each time is a leak.
        if told:
            again = await _differences(tmp_path / attempt)
            told = {name: change for name, change in told.items() if name in again}
    assert not told, "\n\n".join(f"{name}\n{change}" for name, change in told.items())
