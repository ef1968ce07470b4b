"""The service over real gRPC: a backend of known vectors, and the real model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from embedding.bert_reference import NumpyBackend
from embedding.bert_weights import read_bert
from embedding.model import DEFAULT_MODEL, find_model
from embedding.model_cache import ModelCache
from embedding.reference_texts import REFERENCE_TEXTS, ReferenceSet, cosines
from embedding.service import EmbeddingService, open_service
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings, cache_folder
from embedding.tokenizer import TextTokenizer
from nearline import BlockingEmbeddingClient, EmbeddingClient, Lane, TextRole
from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline.errors import DeadlineExceeded, InvalidRequest, SnapshotMismatch, Unsupported
from nearline.serving import running
from nearline.settings import ServerSettings
from nearline.v1 import embedding_pb2, embedding_pb2_grpc, types_pb2
from nearline.vectors import unpack
from nearline_cli.local.key_store import KeyStore
from tests.embedding.fakes import FakeBackend, word_model
from tests.metric_labels import label_values, naming
from tests.scale import nightly

pytestmark = pytest.mark.service
ROOT = Path(__file__).parents[2]
# The first start of a machine converts and measures.
FIRST_START = pytest.mark.timeout(300)
Stub = embedding_pb2_grpc.EmbeddingServiceStub


@asynccontextmanager
async def fake_server(
    folder: Path, backend: FakeBackend, **limits: int
) -> AsyncIterator[tuple[EmbeddingClient, Stub]]:
    settings = EmbeddingSettings(**limits)
    service = EmbeddingService(word_model(folder / "m"), backend, settings)
    await service.start()
    try:
        async with (
            running([registration(lambda: service)]) as address,
            EmbeddingClient(address) as client,
            grpc.aio.insecure_channel(address) as channel,
        ):
            yield client, Stub(channel)
            backend.release()
    finally:
        backend.release()
        await service.close()


@asynccontextmanager
async def real_server() -> AsyncIterator[EmbeddingClient]:
    settings = EmbeddingSettings()
    async with (
        open_service(settings, cache_folder(settings, os.environ)) as service,
        running([registration(lambda: service)]) as address,
        EmbeddingClient(address) as client,
    ):
        yield client


async def test_no_metric_has_a_text_or_a_request_id(tmp_path: Path) -> None:
    async with fake_server(tmp_path, FakeBackend()) as (client, stub):
        await client.embed(["w1 quinn"])
        request = embedding_pb2.EmbedRequest(texts=["w1"], expected_fingerprint="quinn")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Embed(request, timeout=20, metadata=[("x-request-id", "quinn")])
        assert naming(label_values(), {"quinn"}) == set()


async def test_an_overload_carries_retry_info_and_pushback(tmp_path: Path) -> None:
    backend = FakeBackend()
    async with fake_server(tmp_path, backend, max_queued_tokens=4) as (client, stub):
        backend.hold()
        first = asyncio.create_task(client.embed(["w1"], lane=Lane.BULK))
        assert await asyncio.to_thread(backend.entered.acquire, timeout=20)
        request = embedding_pb2.EmbedRequest(texts=["w2"], lane=embedding_pb2.LANE_BULK)
        # One of the two waits in the queue, the other finds it full.
        calls = [asyncio.ensure_future(stub.Embed(request, timeout=20)) for _ in range(2)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            done.pop().result()
        backend.release()
        await asyncio.gather(first, *waiting)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    assert int(trailers["grpc-retry-pushback-ms"]) >= 1
    details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    delay = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(delay) for detail in details)
    assert delay.retry_delay.ToMicroseconds() > 0


async def test_a_tenant_that_floods_the_service_keeps_no_other_one_out(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.toml")
    tokens = [keys.create(tenant, {EVERY: Right.READ})[0] for tenant in ("a", "b")]
    backend = FakeBackend()
    settings = EmbeddingSettings(max_queued_tokens=300)
    service = EmbeddingService(word_model(tmp_path / "m"), backend, settings, tokens_per_s=30.0)
    await service.start()
    guarded = ServerSettings(keys=str(tmp_path / "keys.toml"))
    async with (
        running([registration(lambda: service)], settings=guarded) as address,
        EmbeddingClient(address, token=tokens[0]) as a,
        EmbeddingClient(address, token=tokens[1]) as b,
    ):
        backend.hold()
        # A text has three tokens: all of them are more than the lane holds, and 11 s of work.
        asked = embedding_pb2.EmbedRequest(texts=["w1"])
        stub = Stub(a.grpc_channel)
        calls = [
            asyncio.create_task(a.call(lambda: stub.Embed(asked, timeout=600))) for _ in range(110)
        ]
        queued, waiting = service._batcher._futures, set(calls)
        while len(waiting) > len(queued):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        held = len(queued)
        request = embedding_pb2.EmbedRequest(texts=["w2"] * 10)
        other = asyncio.ensure_future(Stub(b.grpc_channel).Embed(request, timeout=8))
        while not other.done() and len(queued) == held:
            await asyncio.sleep(0)
        backend.release()
        assert len((await other).reports) == 10
        # Half of the lane, and what the model had taken before it was full.
        assert 51 <= held < 100
        await asyncio.gather(*calls, return_exceptions=True)
    await service.close()


async def test_errors_arrive_as_the_same_class_with_the_field(tmp_path: Path) -> None:
    async with fake_server(tmp_path, FakeBackend()) as (client, _):
        with pytest.raises(InvalidRequest, match="empty") as caught:
            await client.embed(["w1", " "])
        assert caught.value.field == "texts[1]"
        mine = (await client.info()).fingerprint
        with pytest.raises(SnapshotMismatch, match=f"{mine}.*f00.*rebuild"):
            await client.embed(["w1"], expected_fingerprint="f00")
        with pytest.raises(InvalidRequest, match="role"):
            request = embedding_pb2.EmbedRequest(texts=["w1"], role=9)  # type: ignore[arg-type]
            await client.call(lambda: Stub(client.grpc_channel).Embed(request))


async def test_rerank_is_not_served(tmp_path: Path) -> None:
    async with fake_server(tmp_path, FakeBackend()) as (client, stub):
        request = embedding_pb2.RerankRequest(query="w1", texts=["w2"])
        with pytest.raises(Unsupported):
            await client.call(lambda: stub.Rerank(request))


async def test_a_caller_who_leaves_frees_the_queue(tmp_path: Path) -> None:
    backend = FakeBackend()
    async with fake_server(tmp_path, backend) as (client, _):
        backend.hold()
        first = asyncio.create_task(client.embed(["w1"]))
        assert await asyncio.to_thread(backend.entered.acquire, timeout=20)
        # Said by the server or by gRPC, whoever looks at the clock first.
        with pytest.raises(DeadlineExceeded):
            await client.embed(["w2"], timeout_s=0.2)
        # Answered by the server's loop after it has seen the cancellation.
        await client.info()
        backend.release()
        await first
        await client.embed(["w3"])
    assert [batch[0][1] for batch in backend.batches] == [5, 7]


async def test_the_blocking_client_gives_the_same_vectors(tmp_path: Path) -> None:
    async with fake_server(tmp_path, FakeBackend()) as (client, _):
        expected = await client.embed(["w1", "w2 w3"])

        def work() -> None:
            with BlockingEmbeddingClient(client.address) as blocking:
                batches = list(blocking.embed_stream([["w1"], ["w2 w3"]], TextRole.DOCUMENT))
                np.testing.assert_array_equal(
                    np.concatenate([one.vectors for one in batches]), expected.vectors
                )
                np.testing.assert_array_equal(
                    blocking.embed(["w1", "w2 w3"]).vectors, expected.vectors
                )
                assert blocking.info().fingerprint == expected.fingerprint
                with pytest.raises(InvalidRequest, match="empty"):
                    blocking.embed([" "])
                with pytest.raises(Unsupported):
                    blocking.rerank("w1", ["w2"])
                with pytest.raises(Unsupported):
                    blocking.entail(["w1"], ["w2"])

        await asyncio.to_thread(work)


async def test_vectors_travel_in_the_format_asked_for(tmp_path: Path) -> None:
    async with fake_server(tmp_path, FakeBackend()) as (_, stub):
        for dtype, step in ((types_pb2.DATA_TYPE_F16, 1e-3), (types_pb2.DATA_TYPE_I8, 1 / 254)):
            exact = await stub.Embed(embedding_pb2.EmbedRequest(texts=["w1 w2"]))
            reply = await stub.Embed(embedding_pb2.EmbedRequest(texts=["w1 w2"], dtype=dtype))
            assert reply.vectors.dtype == dtype
            np.testing.assert_allclose(unpack(reply.vectors), unpack(exact.vectors), atol=step)


async def test_a_stream_over_grpc_answers_in_order(tmp_path: Path) -> None:
    async def batches() -> AsyncIterator[Sequence[str]]:
        for number in range(40):
            yield [f"w{number}", "w1 w2"]

    async with fake_server(tmp_path, FakeBackend(slots=2)) as (client, _):
        alone = [(await client.embed([f"w{n}"])).vectors[0] for n in range(40)]
        streamed = [reply.vectors[0] async for reply in client.embed_stream(batches())]
    np.testing.assert_array_equal(np.stack(streamed), np.stack(alone))


@FIRST_START
async def test_a_row_of_a_batch_equals_the_same_text_alone() -> None:
    async with real_server() as client:
        batch = await client.embed(REFERENCE_TEXTS, lane=Lane.BULK, timeout_s=60)
        alone = [(await client.embed([text])).vectors[0] for text in REFERENCE_TEXTS]
    assert float(cosines(batch.vectors, np.stack(alone)).min()) >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1.0, atol=1e-5)
    longest = batch.tokens.argmax()
    assert batch.truncated[longest] and batch.tokens[longest] > 256
    assert not batch.truncated[0] and batch.tokens[0] == 3


@FIRST_START
async def test_a_query_finds_its_document_by_meaning() -> None:
    documents = ["Parse a string into a date.", "Bake bread at 230 degrees.", "Sort a list."]
    async with real_server() as client:
        query = await client.embed(["how do I read a timestamp from text"], TextRole.QUERY)
        found = await client.embed(documents)
    assert int((found.vectors @ query.vectors[0]).argmax()) == 0


@pytest.fixture(scope="module")
def plain_vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[np.ndarray]:
    """Vectors of the golden texts as plain sentence-transformers gives them."""
    pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("plain")
    script = (
        "import numpy, sys; from sentence_transformers import SentenceTransformer;"
        "from embedding.reference_texts import REFERENCE_TEXTS;"
        "encoder = SentenceTransformer(sys.argv[1], device='cpu');"
        "numpy.save(sys.argv[2], encoder.encode(list(REFERENCE_TEXTS)))"
    )
    model = find_model(DEFAULT_MODEL, cache_folder=folder)
    file = folder / "plain.npy"
    subprocess.run(
        [sys.executable, "-c", script, str(model.folder), str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    yield np.load(file)


@pytest.mark.long
@FIRST_START
async def test_the_reference_is_what_sentence_transformers_gives(plain_vectors: np.ndarray) -> None:
    async with real_server() as client:
        info = await client.info()
        served = await client.embed(REFERENCE_TEXTS, lane=Lane.BULK, timeout_s=60)
    folder = cache_folder(EmbeddingSettings(), os.environ)
    model = find_model(DEFAULT_MODEL, cache_folder=folder)
    reference = ModelCache(folder, model).reference()
    assert reference is not None
    assert float(cosines(reference, plain_vectors).min()) >= 0.999999
    # An older conversion may have left its own in the cache; this one is computed now.
    bert = read_bert(model)
    assert bert is not None
    golden = ReferenceSet(TextTokenizer(model.folder, model.max_tokens), model.pad_id, 1024, 1)
    assert float(cosines(golden.embed(NumpyBackend(bert)), plain_vectors).min()) >= 0.999999
    assert float(cosines(served.vectors, plain_vectors).min()) >= 0.999
    assert 0.999 <= info.min_cosine <= 1.000001


@FIRST_START
def test_serving_needs_no_torch_once_the_model_is_converted(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    # Import hooks stand for a machine without torch: finding it is then impossible.
    script = (
        "import asyncio, importlib.util as u, os, sys; real = u.find_spec;"
        "u.find_spec = lambda n, p=None: None if n == 'torch' else real(n, p);"
        "sys.modules['torch'] = sys.modules['transformers'] = None;"
        "from embedding.service import open_service;"
        "from embedding.settings import EmbeddingSettings, cache_folder;"
        "s = EmbeddingSettings(backend='auto', token_budget=768)\n"
        "async def main():\n"
        "    async with open_service(s, cache_folder(s, os.environ)) as service:\n"
        "        print((await service.info()).backend)\n"
        "        print((await service.embed(['hello'])).vectors.shape)\n"
        "asyncio.run(main())"
    )
    asyncio.run(_first_start())
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("openvino-") and "(1, 384)" in done.stdout


async def _first_start() -> None:
    async with real_server():
        pass


def test_importing_openvino_forks_nothing_and_calls_nobody() -> None:
    pytest.importorskip("openvino")
    script = (
        "import sys; events = [];"
        "sys.addaudithook(lambda name, _: events.append(name));"
        "import embedding.openvino_backend as backend; backend.has_bf16();"
        "sys.exit(bool({'os.fork', 'subprocess.Popen', 'socket.connect'} & set(events)))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@nightly
@FIRST_START
def test_two_processes_that_convert_at_once_leave_one_whole_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "embedding.convert", "--cache-dir", str(tmp_path)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors.decode()
    cache = ModelCache(tmp_path, find_model(DEFAULT_MODEL, cache_folder=tmp_path))
    assert cache.graph.is_file() and cache.reference() is not None
    assert not list(cache.folder.glob("converting-*"))
