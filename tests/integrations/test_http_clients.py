"""OpenAI's, Cohere's and Hugging Face's own clients ask a running gateway."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import numpy as np
import pytest

from nearline import Client, Item
from nearline.vectors import normalise
from tests.embedding.fakes import expected
from tests.redis_server import needs_redis

cohere = pytest.importorskip("cohere", reason="cohere is not installed: make test-integrations")
openai = pytest.importorskip("openai", reason="openai is not installed: make test-integrations")
hub = pytest.importorskip(
    "huggingface_hub", reason="huggingface_hub is not installed: make test-integrations"
)
pytestmark = [pytest.mark.service, needs_redis]
# Ids of the words between those of [CLS] and [SEP], as the tokenizer of the test's model has them.
TEXTS = {"w1 w2": (2, 5, 6, 3), "w99": (2, 103, 3)}
VECTORS = np.stack([expected(ids) for ids in TEXTS.values()])
# The reranker's score is the number of characters, and the clients get its logistic function.
BY_LENGTH = ["a", "ccc", "bb"]
SHARES = [1 / (1 + math.exp(-length)) for length in (3, 2, 1)]
QUESTION: Any = [{"role": "user", "content": "w1 w2 w3"}]
NOTHING = {"filter": "kind = none"}


@pytest.fixture(scope="module", name="asking")
def give_asking(gateway: str) -> Iterator[Any]:
    """Returns OpenAI's client of the gateway."""
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="any", max_retries=0) as asking:
        yield asking


@pytest.fixture(scope="module", name="answered")
def give_answered(client: Client) -> Mapping[str, Any]:
    """Returns the arguments of a chat with a collection of one sentence."""
    client.collections.create("answers", attributes={"kind": "string"})
    item = Item(id="a", title="Words", text="w1 w2 w3.", attributes={"kind": "text"})
    watermark = client.upsert([item], collection="answers").watermark
    return {
        "model": "nearline/answers:extractive",
        "messages": QUESTION,
        "extra_body": {"nearline": {"min_watermark": b64encode(watermark).decode()}},
    }


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai_embeds(asking: Any, encoding: str) -> None:
    found = asking.embeddings.create(model="words", input=list(TEXTS), encoding_format=encoding)
    rows = [one.embedding for one in found.data]
    if encoding == "base64":
        rows = [np.frombuffer(b64decode(row), "<f4") for row in rows]
    assert np.allclose(rows, VECTORS)
    assert found.usage.total_tokens == sum(map(len, TEXTS.values()))


def test_openai_embeds_with_fewer_dimensions(asking: Any) -> None:
    found = asking.embeddings.create(model="words", input=list(TEXTS), dimensions=2)
    assert np.allclose([one.embedding for one in found.data], normalise(VECTORS[:, :2]))


def test_openai_lists_models(asking: Any, answered: Mapping[str, Any]) -> None:
    names = {one.id for one in asking.models.list()}
    assert {"nearline/answers", "nearline/answers:extractive", "words", "lengths"} <= names
    assert asking.models.retrieve(answered["model"]).id == answered["model"]
    with pytest.raises(openai.NotFoundError, match="nearline/missing"):
        asking.models.retrieve("nearline/missing")


def test_openai_gets_an_answer_with_its_citation(asking: Any, answered: Mapping[str, Any]) -> None:
    found = asking.chat.completions.create(**answered)
    (choice,) = found.choices
    assert (choice.message.content, choice.finish_reason) == ("Words: w1 w2 w3. [1]", "stop")
    (annotation,) = choice.message.annotations
    cited = annotation.url_citation
    assert (cited.title, cited.url) == ("Words", "nearline:a#char=0,9")
    assert choice.message.content[cited.start_index : cited.end_index] == "[1]"
    # No model wrote it.
    assert found.usage.total_tokens == 0


def test_openai_gets_a_streamed_answer_with_its_citation(
    asking: Any, answered: Mapping[str, Any]
) -> None:
    with asking.chat.completions.create(
        **answered, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    deltas = [one.choices[0].delta for one in chunks if one.choices]
    assert "".join(one.content or "" for one in deltas) == "Words: w1 w2 w3. [1]"
    (cited,) = [one.annotations for one in deltas if getattr(one, "annotations", None)]
    assert [one["url_citation"]["url"] for one in cited] == ["nearline:a#char=0,9"]
    assert [one.choices[0].finish_reason for one in chunks if one.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
def test_openai_gets_a_refusal(asking: Any, answered: Mapping[str, Any], stream: bool) -> None:
    filtered = {**answered["extra_body"]["nearline"], **NOTHING}
    found = asking.chat.completions.create(
        **{**answered, "extra_body": {"nearline": filtered}}, stream=stream
    )
    messages = [one.choices[0].delta for one in found] if stream else [found.choices[0].message]
    assert not any(one.content for one in messages)
    (refusal,) = [one.refusal for one in messages if one.refusal]
    assert refusal.startswith("Nothing that was found answers this")


def test_openai_raises_its_own_errors(asking: Any, answered: Mapping[str, Any]) -> None:
    with pytest.raises(openai.NotFoundError, match="'missing'"):
        asking.chat.completions.create(**{**answered, "model": "nearline/missing"})
    with pytest.raises(openai.BadRequestError, match=r"1\.\.4") as bad:
        asking.embeddings.create(model="words", input="w1", dimensions=5)
    assert bad.value.param == "dimensions"


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere_reranks(gateway: str, version: str) -> None:
    with getattr(cohere, version)(api_key="any", base_url=gateway) as asking:
        found = asking.rerank(model="lengths", query="q", documents=BY_LENGTH, top_n=2)
        assert [one.index for one in found.results] == [1, 2]
        assert [one.relevance_score for one in found.results] == pytest.approx(SHARES[:2])
        with pytest.raises(cohere.BadRequestError, match=r"documents\[1\] is empty"):
            asking.rerank(model="lengths", query="q", documents=["a", ""])


def test_hugging_face_embeds(gateway: str) -> None:
    with hub.InferenceClient(model=f"{gateway}/embed") as asking:
        assert np.allclose(asking.feature_extraction(list(TEXTS)), VECTORS)
        short = asking.feature_extraction("w1 w2", prompt_name="query", dimensions=2)
        assert np.allclose(short, normalise(VECTORS[:1, :2]))
        with pytest.raises(hub.errors.HfHubHTTPError, match=r"1\.\.4"):
            asking.feature_extraction("w1", dimensions=5)


def test_the_client_of_hugging_face_has_no_reranking_so_it_is_asked_over_http(gateway: str) -> None:
    assert not hasattr(hub.InferenceClient, "rerank")
    body = {"query": "q", "texts": BY_LENGTH, "return_text": True}
    found = httpx2.post(f"{gateway}/rerank", json=body, trust_env=False).json()
    assert [(one["index"], one["text"]) for one in found] == [(1, "ccc"), (2, "bb"), (0, "a")]
    assert [one["score"] for one in found] == pytest.approx(SHARES)
