"""OpenAI's own client asks the gateway: embeddings, models, and answers, streamed and whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from nearline import errors
from nearline.v1 import admin_pb2, embedding_pb2, generation_pb2
from nearline.vectors import pack
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
Served = tuple[AsyncOpenAI, Behind]
ROWS = np.array([[0.6, -0.8], [1, 0]], np.float32)
QUESTION: Any = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "A kettle."},
    {"role": "user", "content": [{"type": "text", "text": "How hot?"}]},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="served")
async def give_served() -> AsyncIterator[Served]:
    async with (
        gateway() as (client, behind),
        AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="k1", max_retries=0) as asking,
    ):
        yield asking, behind


def events(
    *, refused: bool = False, not_sure: bool = False
) -> list[generation_pb2.GenerateResponse]:
    event = generation_pb2.GenerateResponse
    evidence = event(evidence=generation_pb2.EvidenceEvent())
    usage = event(usage=generation_pb2.UsageEvent(prompt_tokens=7, completion_tokens=5))
    if refused:
        refusal = generation_pb2.RefusalEvent(
            reason=generation_pb2.RefusalEvent.REASON_NO_EVIDENCE, message="No document says it."
        )
        return [evidence, usage, event(refusal=refusal)]
    citation = generation_pb2.Citation(
        number=1, document_id="manual", char_start=10, char_end=42, title="Manual", text_hash="ab"
    )
    done = generation_pb2.DoneEvent(
        citations=1,
        finish=generation_pb2.DoneEvent.FINISH_COMPLETE,
        evidence_probability=0.9,
        not_sure=not_sure,
    )
    lead = "Your documents may not answer this. The closest passages:\n\n" if not_sure else ""
    return [
        evidence,
        event(delta=generation_pb2.DeltaEvent(text=f"{lead}It boils ")),
        event(delta=generation_pb2.DeltaEvent(text="at 100 degrees [1].")),
        event(citation=citation),
        usage,
        event(done=done),
    ]


async def test_texts_are_embedded_as_numbers_and_in_base64(served: Served) -> None:
    asking, behind = served
    reply = embedding_pb2.EmbedResponse(vectors=pack(ROWS))
    reply.reports.add(tokens=3)
    reply.reports.add(tokens=4)
    behind.answers["Embed"] = lambda request: reply
    behind.answers["GetInfo"] = lambda request: embedding_pb2.GetInfoResponse(model="minilm")
    # The client asks for base64, unless told otherwise.
    for more in ({}, {"encoding_format": "float"}):
        found = await asking.embeddings.create(
            model="minilm",
            input=["a", "b"],
            dimensions=2,
            **more,  # type: ignore[arg-type]
        )
        assert np.allclose([one.embedding for one in found.data], ROWS)
        assert found.usage.total_tokens == 7
    assert (list(behind.request.texts), behind.request.dimensions) == (["a", "b"], 2)
    assert behind.metadata["authorization"] == "Bearer k1"
    with pytest.raises(openai.NotFoundError, match="send 'minilm', or leave model out") as other:
        await asking.embeddings.create(model="text-embedding-3-small", input="a")
    assert other.value.param == "model"


async def test_models_are_collections_and_what_embeds(served: Served) -> None:
    asking, behind = served
    status = admin_pb2.GetServingStatusResponse()
    status.collections.add(collection="shop", snapshot_id="20261127T071754Z-c41ec4")
    behind.answers["GetServingStatus"] = lambda request: status
    behind.answers["GetInfo"] = lambda request: embedding_pb2.GetInfoResponse(model="minilm")
    names = [one.id async for one in asking.models.list()]
    assert names == ["nearline/shop", "nearline/shop:extractive", "minilm"]
    found = await asking.models.retrieve("nearline/shop:large")
    assert (found.id, found.created) == ("nearline/shop:large", 1795763874)
    with pytest.raises(openai.NotFoundError):
        await asking.models.retrieve("nearline/other")

    def away(request: object) -> None:
        raise errors.NotReady("the embedding service is away")

    behind.answers["GetInfo"] = away
    assert [one.id async for one in asking.models.list()] == names[:2]


async def test_an_answer_has_its_citations(served: Served) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events()
    found = await asking.chat.completions.create(
        model="nearline/shop:extractive",
        messages=QUESTION,
        max_tokens=50,
        extra_body={"nearline": {"filter": "kind = manual", "documents": 3}},
    )
    request = behind.request
    assert (request.collection, request.backend) == ("shop", "extractive")
    assert (request.question, request.max_tokens, request.documents) == ("How hot?", 50, 3)
    assert [(one.question, one.answer) for one in request.history] == [("What is it?", "A kettle.")]
    assert request.filter.equals.field == "kind"
    (choice,) = found.choices
    assert choice.message.content == "It boils at 100 degrees [1]."
    assert choice.finish_reason == "stop" and choice.message.refusal is None
    (annotation,) = choice.message.annotations or []
    cited = annotation.url_citation
    assert choice.message.content[cited.start_index : cited.end_index] == "[1]"
    assert (cited.title, cited.url) == ("Manual", "nearline:manual#char=10,42")
    assert found.usage is not None and found.usage.total_tokens == 12
    more: Any = found.model_extra
    (citation,) = more["nearline"]["citations"]
    assert (citation["document_id"], citation["text_hash"]) == ("manual", "ab")


async def test_the_model_names_the_collection_whatever_the_further_fields_say(
    served: Served,
) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events()
    await asking.chat.completions.create(
        model="nearline/shop",
        messages=QUESTION,
        extra_body={"nearline": {"collection": "other", "backend": "large"}},
    )
    assert (behind.request.collection, behind.request.backend) == ("shop", "")


@pytest.mark.parametrize(
    ("roles", "session", "history"),
    [
        ("u", "", []),
        ("uaau", "", [("0", "12")]),
        ("auau", "", [("1", "2")]),
        ("uuau", "", [("0", ""), ("1", "2")]),
        ("usau", "", [("0", "2")]),
        # The service has the conversation.
        ("uau", "s1", []),
    ],
)
async def test_messages_before_the_question_are_turns_unless_there_is_a_session(
    served: Served, roles: str, session: str, history: list[tuple[str, str]]
) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events()
    names = {"u": "user", "a": "assistant", "s": "system"}
    messages: Any = [
        {"role": names[role], "content": str(number)} for number, role in enumerate(roles)
    ]
    await asking.chat.completions.create(
        model="nearline/shop",
        messages=messages,
        max_tokens=50,
        max_completion_tokens=7,
        extra_body={"nearline": {"session_id": session}},
    )
    request = behind.request
    # The newer of the two names.
    assert request.max_tokens == 7
    assert (request.question, request.session_id) == (str(len(roles) - 1), session)
    assert [(one.question, one.answer) for one in request.history] == history


async def test_a_marker_that_the_text_had_before_is_not_taken_for_the_citation(
    served: Served,
) -> None:
    asking, behind = served
    delta = generation_pb2.GenerateResponse(delta=generation_pb2.DeltaEvent(text="Set list[1]: "))
    behind.answers["Generate"] = lambda request: [delta, *events()]
    found = await asking.chat.completions.create(model="nearline/shop", messages=QUESTION)
    message = found.choices[0].message
    assert message.content == "Set list[1]: It boils at 100 degrees [1]."
    (annotation,) = message.annotations or []
    assert annotation.url_citation.start_index == message.content.rindex("[1]")


async def test_a_streamed_answer_has_its_citations_as_they_come(served: Served) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events()
    stream = await asking.chat.completions.create(
        model="nearline/shop",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    deltas: list[Any] = [one.choices[0].delta for one in chunks if one.choices]
    assert "".join(one.content or "" for one in deltas) == "It boils at 100 degrees [1]."
    (cited,) = (one.annotations[0] for one in deltas if getattr(one, "annotations", None))
    assert cited["url_citation"]["url"] == "nearline:manual#char=10,42"
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 5


async def test_a_refusal_is_told_as_one(served: Served) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events(refused=True)
    found = await asking.chat.completions.create(model="nearline/shop", messages=QUESTION)
    assert found.choices[0].message.content is None
    assert found.choices[0].message.refusal == "No document says it."


@pytest.mark.parametrize("stream", [False, True])
async def test_what_may_be_no_answer_is_told_as_such(served: Served, stream: bool) -> None:
    asking, behind = served
    behind.answers["Generate"] = lambda request: events(not_sure=True)
    found = await asking.chat.completions.create(
        model="nearline/shop",
        messages=QUESTION,
        stream=stream,
        extra_body={"nearline": {"strictness": "strict"}},
    )
    assert behind.request.strictness == generation_pb2.STRICTNESS_STRICT
    parts: list[Any] = [chunk async for chunk in found] if stream else [found]  # type: ignore[union-attr]
    # In words where any client shows it, and as a field of the last part.
    texts = [
        (part.choices[0].delta if stream else part.choices[0].message).content or ""
        for part in parts
    ]
    assert "".join(texts).startswith("Your documents may not answer this.")
    assert parts[-1].model_extra["nearline"]["done"]["not_sure"] is True
    assert parts[-1].choices[0].finish_reason == "stop"


async def test_errors_are_those_of_the_client(served: Served) -> None:
    asking, behind = served
    question: Any = [{"role": "user", "content": "?"}]

    def failing(error: errors.NearlineError) -> None:
        def fail(request: object) -> None:
            raise error

        behind.answers["Generate"] = fail

    failing(errors.Overloaded("too many", retry_after_s=2))
    with pytest.raises(openai.RateLimitError, match="too many") as limited:
        await asking.chat.completions.create(model="nearline/shop", messages=question)
    assert limited.value.response.headers["retry-after"] == "2"
    failing(errors.Unauthenticated("no credential"))
    with pytest.raises(openai.AuthenticationError):
        await asking.chat.completions.create(model="nearline/shop", messages=question)
    with pytest.raises(openai.NotFoundError, match="nearline/COLLECTION"):
        await asking.chat.completions.create(model="gpt-4", messages=question)
    # The proto has 32 bits.
    for tokens in (0, 1 << 32, 1 << 63, 1 << 70):
        for field in ("max_tokens", "max_completion_tokens"):
            limits: Any = {field: tokens}
            with pytest.raises(openai.BadRequestError) as bad:
                await asking.chat.completions.create(
                    model="nearline/shop", messages=question, **limits
                )
            assert bad.value.param == field
    for name, value, harmless in (
        ("n", 2, 1),
        ("tools", [{"type": "function", "function": {"name": "f"}}], []),
        ("response_format", {"type": "json_object"}, {"type": "text"}),
        ("logprobs", True, False),
        ("stop", ["."], None),
    ):
        behind.answers["Generate"] = lambda request: events()
        ask = {"model": "nearline/shop", "messages": question}
        await asking.chat.completions.create(**ask, **{name: harmless})  # type: ignore[call-overload]
        with pytest.raises(openai.BadRequestError, match=f"{name} is not supported: .* leave it"):
            await asking.chat.completions.create(**ask, **{name: value})  # type: ignore[call-overload]
    late = errors.NotReady("the model has gone")
    behind.answers["Generate"] = lambda request: [*events()[:2], late]
    stream = await asking.chat.completions.create(
        model="nearline/shop", messages=question, stream=True
    )
    with pytest.raises(openai.APIError, match="the model has gone"):
        async for _ in stream:
            pass
