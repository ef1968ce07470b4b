"""Tools that change a collection: `remember`, `forget`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from gateway.json_decoder import decode
from gateway.mcp.service_calls import ServiceCalls, encoded
from gateway.mcp.service_tool import WRITES, ServiceTool
from gateway.mcp.tool_arguments import ForgetArguments, RememberArguments
from gateway.mcp.tool_results import ForgetResult, UserReceiptResult, WriteOutcomeResult
from nearline.errors import Conflict, InvalidRequest, NearlineError
from nearline.v1 import retrieval_pb2

_SERVICE: Final = "RetrievalService"
# For a change to reach what is searched, before the tool returns without it.
_VISIBLE_S: Final = 3.0


async def _remember(calls: ServiceCalls, arguments: RememberArguments) -> WriteOutcomeResult:
    item: dict[str, Any] = {
        "id": arguments.item_id,
        "title": arguments.title,
        "text": arguments.text,
        "attributes": arguments.attributes,
    }
    if arguments.expire_time:
        item["expire_time"] = arguments.expire_time
    message = retrieval_pb2.UpsertItemsRequest(
        collection=arguments.collection or calls.collection,
        items=[decode(retrieval_pb2.Item, item)],
        only_attributes=arguments.only_attributes,
    )
    return await _written(calls, await calls.one(_SERVICE, "UpsertItems", message), message)


async def _forget(calls: ServiceCalls, arguments: ForgetArguments) -> ForgetResult:
    if bool(arguments.item_id) == bool(arguments.user_id):
        raise InvalidRequest("name either item_id or user_id, and not both", field="item_id")
    collection = arguments.collection or calls.collection
    if arguments.item_id:
        message = retrieval_pb2.DeleteItemsRequest(collection=collection, ids=[arguments.item_id])
        reply = await calls.one(_SERVICE, "DeleteItems", message)
        return ForgetResult(item=await _written(calls, reply, message))
    receipt = await encoded(
        await calls.one(
            _SERVICE,
            "DeleteUser",
            retrieval_pb2.DeleteUserRequest(collection=collection, user_id=arguments.user_id),
        )
    )
    return ForgetResult(
        user=UserReceiptResult.model_validate({**receipt, "user_id": arguments.user_id})
    )


async def _written(calls: ServiceCalls, reply: Any, request: Any) -> WriteOutcomeResult:
    """Returns what became of the one item of a write, once searches see it.

    Raises: InvalidRequest, Conflict: the service rejected it.
    """
    result = reply.results[0]
    if result.outcome == retrieval_pb2.WriteResult.OUTCOME_REJECTED:
        kind = Conflict if result.reason == Conflict.reason else InvalidRequest
        raise kind(result.message)
    found = await encoded(result)
    visible = await _is_visible(calls, request.collection, result.id, reply.watermark)
    return WriteOutcomeResult.model_validate({**found, "visible": visible})


async def _is_visible(calls: ServiceCalls, collection: str, item_id: str, watermark: bytes) -> bool:
    """Waits until a read sees a write; False if it does not soon, or the caller may not read."""
    limited = calls.context._replace(timeout_s=min(_VISIBLE_S, calls.context.timeout_s))
    try:
        await replace(calls, context=limited).one(
            _SERVICE,
            "GetItems",
            retrieval_pb2.GetItemsRequest(
                collection=collection,
                ids=[item_id],
                payload=[retrieval_pb2.PAYLOAD_FIELD_TITLE],
                min_watermark=watermark,
            ),
        )
    except NearlineError:
        return False
    return True


TOOLS: Final = (
    ServiceTool(
        name="remember",
        title="Remember",
        description="Stores an item, so that search and ask find it. An item with the same id is "
        "replaced entirely, unless only_attributes is set. When the tool returns, the item is "
        "durable. Use it when the user asks to keep or to correct something.",
        service=_SERVICE,
        arguments=RememberArguments,
        result=WriteOutcomeResult,
        run=_remember,
        annotations=WRITES,
    ),
    ServiceTool(
        name="forget",
        title="Forget",
        description="Deletes an item, or erases everything stored about a user; name one of the "
        "two. This cannot be undone: use it only if the user asks for it. For a user, it returns a "
        "receipt that says what was erased and which models still learned from it.",
        service=_SERVICE,
        arguments=ForgetArguments,
        result=ForgetResult,
        run=_forget,
        annotations=WRITES,
    ),
)
