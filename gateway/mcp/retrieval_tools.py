"""Tools that find and read: `list_collections`, `search`, `recommend`, `why_not`, `get_item`."""

from __future__ import annotations

from typing import Any, Final

from gateway.mcp.service_calls import ServiceCalls, encoded
from gateway.mcp.service_tool import READS, ServiceTool
from gateway.mcp.tool_arguments import (
    GetItemArguments,
    ListCollectionsArguments,
    RecommendArguments,
    SearchArguments,
    WhyNotArguments,
)
from gateway.mcp.tool_results import (
    GetItemResult,
    HitResult,
    ListCollectionsResult,
    RecommendationResult,
    RecommendResult,
    SearchResult,
    WhyNotResult,
)
from nearline import contract as c, wire
from nearline.errors import NotFound
from nearline.filter_text import parse_filter
from nearline.v1 import admin_pb2, retrieval_pb2

_SERVICE: Final = "RetrievalService"
# Of the text of a hit: one that is longer is a whole document, of which the passage with most of
# the query is shown; get_item reads the rest in parts.
_MAX_PASSAGE: Final = 8_000
# Of the text of an item, in one reply.
_MAX_TEXT: Final = 40_000
_SHOWN: Final = (
    retrieval_pb2.PAYLOAD_FIELD_TITLE,
    retrieval_pb2.PAYLOAD_FIELD_TEXT,
    retrieval_pb2.PAYLOAD_FIELD_ATTRIBUTES,
)
_MOST_COLLECTIONS: Final = 1_000
_MODES: Final = {
    "auto": retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
    "dense": retrieval_pb2.SEARCH_MODE_DENSE,
    "lexical": retrieval_pb2.SEARCH_MODE_LEXICAL,
    "hybrid": retrieval_pb2.SEARCH_MODE_HYBRID,
}


async def _list_collections(
    calls: ServiceCalls, arguments: ListCollectionsArguments
) -> ListCollectionsResult:
    message = admin_pb2.ListCollectionsRequest(page_size=_MOST_COLLECTIONS)
    reply = await calls.one("AdminService", "ListCollections", message)
    wanted = [one for one in reply.collections if arguments.collection in ("", one.name)]
    return ListCollectionsResult(collections={one.name: one.documents for one in wanted})


async def _search(calls: ServiceCalls, arguments: SearchArguments) -> SearchResult:
    message = retrieval_pb2.SearchRequest(
        collection=arguments.collection or calls.collection,
        query=retrieval_pb2.Query(text=arguments.query),
        options=retrieval_pb2.SearchOptions(
            k=arguments.k,
            mode=_MODES[arguments.mode],
            payload=_SHOWN,
            highlight=retrieval_pb2.Highlighting(passage_chars=c.MAX_PASSAGE_CHARACTERS),
        ),
    )
    if arguments.filter:
        message.options.filter.CopyFrom(wire.filter_to_proto(parse_filter(arguments.filter)))
    reply = await calls.one(_SERVICE, "Search", message)
    result = await encoded(reply.result)
    coverage = reply.info.coverage
    return SearchResult(
        hits=[_hit(one) for one in result["hits"]],
        complete=coverage.shards_answered == coverage.shards_total,
        snapshot_id=reply.info.snapshot_id,
    )


def _hit(found: dict[str, Any]) -> HitResult:
    hit = HitResult.model_validate(found)
    if len(hit.text) > _MAX_PASSAGE:
        cut = {"text": hit.text[:_MAX_PASSAGE], "start": hit.start, "end": hit.start + _MAX_PASSAGE}
        passage = found.get("highlights", {}).get("passage", cut)
        hit.text, hit.start, hit.end = passage["text"], passage["start"], passage["end"]
    return hit


def _recommend_request(
    calls: ServiceCalls, arguments: RecommendArguments
) -> retrieval_pb2.RecommendRequest:
    message = retrieval_pb2.RecommendRequest(
        collection=arguments.collection or calls.collection,
        user_id=arguments.user_id,
        session_id=arguments.session_id,
        item_ids=arguments.item_ids,
        surface=arguments.surface,
        n=arguments.n,
        exclude_ids=arguments.exclude_ids,
    )
    if arguments.filter:
        message.filter.CopyFrom(wire.filter_to_proto(parse_filter(arguments.filter)))
    return message


async def _recommend(calls: ServiceCalls, arguments: RecommendArguments) -> RecommendResult:
    message = _recommend_request(calls, arguments)
    message.payload.extend(
        (retrieval_pb2.PAYLOAD_FIELD_TITLE, retrieval_pb2.PAYLOAD_FIELD_ATTRIBUTES)
    )
    message.explain = True
    reply = await encoded(await calls.one(_SERVICE, "Recommend", message))
    return RecommendResult(
        recommendations=[
            RecommendationResult.model_validate({**one["hit"], "reasons": one["reasons"]})
            for one in reply["recommendations"]
        ],
        ignored_ids=reply["ignored_ids"],
        list_id=reply["info"]["list_id"],
        policy=reply["policy"],
    )


async def _why_not(calls: ServiceCalls, arguments: WhyNotArguments) -> WhyNotResult:
    message = _recommend_request(calls, arguments)
    message.why_not_id = arguments.item_id
    reply = await calls.one(_SERVICE, "Recommend", message)
    found = await encoded(reply.why_not)
    return WhyNotResult(
        item_id=arguments.item_id,
        cause=found["cause"],
        rank=found["rank"],
        message=found["message"],
    )


async def _get_item(calls: ServiceCalls, arguments: GetItemArguments) -> GetItemResult:
    message = retrieval_pb2.GetItemsRequest(
        collection=arguments.collection or calls.collection, ids=[arguments.item_id]
    )
    reply = await calls.one(_SERVICE, "GetItems", message)
    if not reply.items:
        raise NotFound(
            f"there is no item {arguments.item_id!r}; search finds the ids of items",
            field="item_id",
        )
    item = await encoded(reply.items[0])
    length = len(item["text"])
    start = min(arguments.start, length)
    wanted = length if arguments.end is None else arguments.end
    end = max(start, min(wanted, length, start + _MAX_TEXT))
    return GetItemResult.model_validate(
        {
            **item,
            "text": item["text"][start:end],
            "start": start,
            "end": end,
            "text_length": length,
        }
    )


TOOLS: Final = (
    ServiceTool(
        name="list_collections",
        title="List collections",
        description="Lists the collections that may be read, with the number of their items.",
        service="AdminService",
        arguments=ListCollectionsArguments,
        result=ListCollectionsResult,
        run=_list_collections,
        annotations=READS,
    ),
    ServiceTool(
        name="search",
        title="Search",
        description="Finds the items of a collection (documents, products, notes) that match a "
        "text best, with the passage of each that matched. Use it to look something up, or to "
        "find the id of an item. To answer a question from documents with checkable citations, "
        "use ask.",
        service=_SERVICE,
        arguments=SearchArguments,
        result=SearchResult,
        run=_search,
        annotations=READS,
    ),
    ServiceTool(
        name="recommend",
        title="Recommend",
        description="Lists items for a user, for an anonymous session, or that go with example "
        "items, each with the reasons for it. Use it when nobody has said in words what they look "
        "for. Without arguments, it lists what is popular.",
        service=_SERVICE,
        arguments=RecommendArguments,
        result=RecommendResult,
        run=_recommend,
        annotations=READS,
    ),
    ServiceTool(
        name="why_not",
        title="Explain a missing recommendation",
        description="Says why an item is not in a list of recommendations. Pass what you passed "
        "to recommend, and the item.",
        service=_SERVICE,
        arguments=WhyNotArguments,
        result=WhyNotResult,
        run=_why_not,
        annotations=READS,
    ),
    ServiceTool(
        name="get_item",
        title="Read an item",
        description="Reads an item by id: title, text, attributes. Pass the start and the end of "
        "a hit or of a citation to read only that passage. One reply has at most "
        f"{_MAX_TEXT:,} characters of the text; read on with start = end.",
        service=_SERVICE,
        arguments=GetItemArguments,
        result=GetItemResult,
        run=_get_item,
        annotations=READS,
    ),
)
