"""Tools that answer from documents, and check what was answered: `ask`, `verify_citation`."""

from __future__ import annotations

import contextlib
from typing import Final

from gateway.json_encoder import encode
from gateway.mcp.service_calls import ServiceCalls, encoded
from gateway.mcp.service_tool import READS, ServiceTool
from gateway.mcp.tool_arguments import AskArguments, VerifyCitationArguments
from gateway.mcp.tool_results import (
    AskResult,
    CitationCheckResult,
    CitationResult,
    RefusalResult,
    VerifyCitationResult,
)
from nearline import wire
from nearline.filter_text import parse_filter
from nearline.v1 import generation_pb2

_SERVICE: Final = "GenerationService"
_STRICTNESS: Final = {
    "auto": generation_pb2.STRICTNESS_UNSPECIFIED,
    "strict": generation_pb2.STRICTNESS_STRICT,
    "balanced": generation_pb2.STRICTNESS_BALANCED,
    "lenient": generation_pb2.STRICTNESS_LENIENT,
}


async def _ask(calls: ServiceCalls, arguments: AskArguments) -> AskResult:
    message = generation_pb2.GenerateRequest(
        collection=arguments.collection or calls.collection,
        question=arguments.question,
        documents=arguments.documents,
        max_tokens=arguments.max_tokens,
        strictness=_STRICTNESS[arguments.strictness],
        refusal_policy=generation_pb2.REFUSAL_POLICY_ANSWER
        if arguments.answer_anyway
        else generation_pb2.REFUSAL_POLICY_REFUSE,
    )
    if arguments.filter:
        message.filter.CopyFrom(wire.filter_to_proto(parse_filter(arguments.filter)))
    parts: list[str] = []
    found = AskResult(answered=False, citations=[], evidence_probability=0.0)
    async with contextlib.aclosing(calls.many(_SERVICE, "Generate", message)) as events:
        async for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    parts.append(event.delta.text)
                case "citation":
                    citation = CitationResult.model_validate(encode(event.citation))
                    found.citations.append(citation)
                case "done":
                    done = encode(event.done)
                    found.not_sure, found.finish = done["not_sure"], done["finish"]
                    found.answered = not found.not_sure
                    found.evidence_probability = done["evidence_probability"]
                case "refusal":
                    refusal = encode(event.refusal)
                    found.refusal = RefusalResult.model_validate(refusal)
                    found.evidence_probability = refusal["evidence_probability"]
    if found.not_sure:
        found.closest_passages = "".join(parts)
    else:
        found.answer = "".join(parts)
    return found


async def _verify_citation(
    calls: ServiceCalls, arguments: VerifyCitationArguments
) -> VerifyCitationResult:
    message = generation_pb2.VerifyCitationRequest(
        collection=arguments.collection or calls.collection,
        citations=[
            generation_pb2.Citation(
                document_id=one.document_id,
                char_start=one.char_start,
                char_end=one.char_end,
                text_hash=one.text_hash,
            )
            for one in arguments.citations
        ],
    )
    reply = await encoded(await calls.one(_SERVICE, "VerifyCitation", message))
    return VerifyCitationResult(
        checks=[
            CitationCheckResult.model_validate({**check, "document_id": citation.document_id})
            for citation, check in zip(arguments.citations, reply["checks"], strict=True)
        ],
        snapshot_id=reply["info"]["snapshot_id"],
    )


TOOLS: Final = (
    ServiceTool(
        name="ask",
        title="Ask",
        description="Answers a question from the documents of a collection. Every sentence cites "
        "the span of a document that supports it, and the answer contains nothing else. If the "
        "documents may not answer it (not_sure), it shows the closest passages, which are no "
        "answer; if nothing is near, it refuses and says why. Do not answer from memory then, but "
        "rephrase, or say that the documents do not answer it. get_item reads the span of a "
        "citation.",
        service=_SERVICE,
        arguments=AskArguments,
        result=AskResult,
        run=_ask,
        annotations=READS,
    ),
    ServiceTool(
        name="verify_citation",
        title="Verify citations",
        description="Checks whether citations of an earlier answer still hold: whether the cited "
        "text is still in the document, has moved, was changed, or is gone. Use it before relying "
        "on an answer that is not fresh.",
        service=_SERVICE,
        arguments=VerifyCitationArguments,
        result=VerifyCitationResult,
        run=_verify_citation,
        annotations=READS,
    ),
)
