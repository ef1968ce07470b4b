"""Tests of `nearline models`, and of embedding models given to `up` and `build`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from embedding.service import EmbeddingService
from embedding.servicer import registration
from embedding.settings import EmbeddingSettings
from generation.writers.instructions import DEFAULT_INSTRUCTIONS
from nearline import GenerationClient, Query, Question, RetrievalClient, SearchOptions
from nearline.contract import Done
from nearline.errors import SettingsError
from nearline.serving import running
from nearline.store.snapshot import Store
from nearline_cli.local.model_spec import parse_model
from nearline_cli.local.process_plan import Layout, plan_processes
from nearline_cli.main import main
from tests.embedding.fakes import FakeBackend, word_model, write_model
from tests.nearline_cli.conftest import Run, Up, command

ROOT = Path(__file__).parents[3]


class ModelsCommand:
    """Runs `nearline models`; gives its JSON lines.

    Args:
        store: The store.
    """

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._store = store
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> list[dict[str, object]]:
        with pytest.raises(SystemExit) as ended:
            main(["models", *words, "--store", str(self._store), "--json"])
        shown = self._capsys.readouterr()
        assert ended.value.code == code, shown.err
        text = shown.out if code == 0 else shown.err
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ModelsCommand:
    return ModelsCommand(tmp_path / "store", capsys)


def test_added_models_are_listed_and_shown(models: ModelsCommand, tmp_path: Path) -> None:
    (tmp_path / "trees.txt").write_bytes(b"trees")
    (tmp_path / "clicks.csv").write_bytes(b"clicks")
    folder = write_model(tmp_path / "model")
    (embedder,) = models("add", "embedder", "mine", "--folder", str(folder))
    assert (embedder["name"], embedder["version"], len(str(embedder["fingerprint"]))) == (
        "mine",
        1,
        32,
    )
    said = ("--metric", "ndcg@10=0.42", "--metric", "a=b=1", "--description", "Of the shop.")
    files = ("--file", str(tmp_path / "trees.txt"), "--training-data", str(tmp_path / "clicks.csv"))
    (ranker,) = models("add", "ranker", "shop", *files, *said, "--parent", "mine@1")
    assert ranker["fingerprint"] == hashlib.sha256(b"trees").hexdigest()
    assert ranker["training_data_sha256"] == hashlib.sha256(b"clicks").hexdigest()
    assert ranker["metrics"] == {"ndcg@10": 0.42, "a=b": 1.0}
    assert ranker["parents"] == [
        {
            "kind": "embedder",
            "name": "mine",
            "version": 1,
            "fingerprint": embedder["fingerprint"],
        }
    ]
    assert [(row["kind"], row["name"], row["stage"]) for row in models("list")] == [
        ("embedder", "mine", "candidate"),
        ("ranker", "shop", "candidate"),
    ]
    assert models("list", "ranker") == [ranker]
    (shown,) = models("show", "shop")
    assert shown == ranker | {"stages": []}


def test_a_version_is_promoted_to_production_and_replaced(models: ModelsCommand) -> None:
    for letter in "ab":
        models("add", "embedder", "m", "--fingerprint", letter)
    (record,) = models("promote", "m@1", "--why", "first")
    assert (record["number"], record["version"], record["stage"]) == (1, 1, "production")
    models("promote", "m", "--stage", "production", "--why", "better")
    assert [(row["version"], row["stage"]) for row in models("list")] == [
        (2, "production"),
        (1, "retired"),
    ]
    models("promote", "m@1", "--stage", "production")
    (shown,) = models("show", "m@production")
    assert shown["version"] == 1 and isinstance(shown["stages"], list)
    assert [one["why"] for one in shown["stages"]] == ["", "first"]


def test_the_shipped_prompt_can_be_added(models: ModelsCommand, tmp_path: Path) -> None:
    (prompt,) = models("add", "prompt", "answer")
    assert prompt["fingerprint"] == hashlib.sha256(DEFAULT_INSTRUCTIONS.text.encode()).hexdigest()
    assert prompt["files"] == [f"{DEFAULT_INSTRUCTIONS.version}.txt"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "writer", "m"), "kind is 'writer'"),
        (("add", "ranker", "m"), "neither files nor a fingerprint"),
        (("add", "ranker", "m", "--metric", "high"), "write NAME=VALUE"),
        (("add", "ranker", "m", "--file", "a", "--folder", "b"), "use one"),
        (("add", "ranker", "m", "--fingerprint", "f", "--parent", "none"), "no model none"),
        (("show", "m"), "there is no model m"),
        (("promote", "known", "--stage", "live"), "candidate, canary, production, retired"),
    ],
)
def test_misuse_is_refused_with_a_remedy(
    models: ModelsCommand, words: tuple[str, ...], message: str
) -> None:
    models("add", "embedder", "known", "--fingerprint", "f")
    code = 1 if "no model" in message else 2
    (error,) = models(*words, code=code)
    assert message in str(error["message"])


def test_a_folder_with_another_fingerprint_is_refused(
    models: ModelsCommand, tmp_path: Path
) -> None:
    folder = str(write_model(tmp_path / "model"))
    (error,) = models("add", "embedder", "m", "--folder", folder, "--fingerprint", "ff", code=2)
    assert "that is served with fewer --dimensions without --folder" in str(error["message"])


def test_models_are_printed_as_tables(
    models: ModelsCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models("add", "embedder", "m", "--fingerprint", "f" * 32, "--metric", "ndcg@10=0.5")
    models("promote", "m", "--why", "it is good")
    for words in (["list"], ["show", "m"]):
        with pytest.raises(SystemExit):
            main(["models", *words, "--store", str(tmp_path / "store")])
    shown = capsys.readouterr().out
    assert "production" in shown and "metric ndcg@10" in shown and "it is good" in shown


@pytest.mark.service
def test_a_running_service_provides_fingerprint_and_settings(nearline: Run, tmp_path: Path) -> None:
    model = word_model(tmp_path / "m").truncated(3)

    async def ask() -> dict[str, object]:
        service = EmbeddingService(model, FakeBackend(), EmbeddingSettings())
        await service.start()
        try:
            async with running([registration(lambda: service)]) as address:
                words = ("models", "add", "embedder", "words", "--embedding", address)
                done = await asyncio.to_thread(nearline, *words, "--json", "--store", "s")
                none = await asyncio.to_thread(
                    nearline, "models", "add", "reranker", "r", "--embedding", address
                )
        finally:
            await service.close()
        assert none.returncode == 2 and "has no reranker" in none.stderr
        added: dict[str, object] = json.loads(done.stdout)
        return added

    added = asyncio.run(ask())
    assert added["fingerprint"] == model.fingerprint
    assert isinstance(added["settings"], dict)
    assert (added["settings"]["dim"], added["settings"]["backend"]) == ("3", "fake")


@pytest.mark.parametrize(
    ("text", "name", "dimensions"),
    [
        ("all-MiniLM-L6-v2:128", "all-MiniLM-L6-v2", 128),
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2", 0),
        ("registry:mine@3:64", "registry:mine@3", 64),
        ("registry:mine", "registry:mine", 0),
        ("registry:7", "registry:7", 0),
        ("./models/m:1", "./models/m", 1),
    ],
)
def test_a_model_spec_may_have_dimensions(text: str, name: str, dimensions: int) -> None:
    model = parse_model(text)
    assert (model.name, model.dimensions) == (name, dimensions)
    # A pin of the other model's weights is not one of these.
    pinned = "NEARLINE_EMBEDDING_MODEL_SHA256" in model.environ
    assert pinned == (name != "all-MiniLM-L6-v2")


@pytest.mark.parametrize("text", ["", ":64", "m:0", "m:65537", "registry:"])
def test_a_spec_without_a_model_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--also-embedding .*(names no model|are allowed)"):
        parse_model(text)


def test_every_service_gets_the_addresses_of_all_embedding_services(tmp_path: Path) -> None:
    layout = Layout(
        store=Store(tmp_path),
        shards=1,
        shard_processes=1,
        port=0,
        embedding_port=0,
        generation_port=0,
        also_embedding=[parse_model("m:8"), parse_model("n")],
        redis="redis://127.0.0.1:1/0",
        upkeep=True,
    )
    with plan_processes(layout) as processes:
        first, second, third = processes.embedding
        asking = (*processes.shards, *processes.routers, *processes.generation, *processes.upkeep)
    assert (second.name, third.name) == ("embedding-2", "embedding-3")
    words = " ".join(second.arguments)
    assert "--model m --dimensions 8" in words and "--store" in words
    assert len({first.address, second.address, third.address}) == 3
    every = f"{first.address},{second.address},{third.address}"
    assert len(asking) == 4
    for plan in asking:
        assert plan.arguments[plan.arguments.index("--embedding") + 1] == every


def test_additional_embedding_services_are_refused_if_none_is_needed(
    nearline: Run, store: Path
) -> None:
    done = nearline("up", "--store", str(store), "--port", "0", "--also-embedding", "m")
    assert done.returncode == 2 and "leave out --also-embedding" in done.stderr


def test_dimensions_and_another_embedding_service_exclude_each_other(
    nearline: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "A kettle."}\n')
    words = ("--embedding", "127.0.0.1:1", "--dimensions", "64")
    done = nearline("build", "--corpus", "a.jsonl", "--store", "s", *words)
    assert done.returncode == 2 and "start that service with --dimensions" in done.stderr


@pytest.mark.service
@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_snapshot_of_fewer_dimensions_is_served_by_the_added_service(
    nearline: Run, tmp_path: Path
) -> None:
    corpus = tmp_path / "a.jsonl"
    texts = {"k": "A kettle boils water in four minutes.", "h": "The harbour was dug in 1811."}
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    corpus.write_text("\n".join(lines))
    store = str(tmp_path / "store")
    words = ("--corpus", str(corpus), "--store", store, "--dimensions", "64", "--json")
    built = nearline("build", *words)
    assert built.returncode == 0, built.stderr
    result = json.loads(built.stdout)
    assert (result["dim"], result["models"]) == (64, ["embedder all-MiniLM-L6-v2@1"])
    ports = ("--port", "0", "--embedding-port", "0", "--generation-port", "0")
    free = (*ports, "--no-redis", "--no-http")
    also = ("--also-embedding", "all-MiniLM-L6-v2:64")
    line = command("up", "--store", store, "--json", *free, *also)
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        running_up = Up(process)
        names = [row["name"] for row in running_up.rows if row["event"] == "process"]
        assert {"embedding", "embedding-2", "generation"} <= set(names)
        generation = next(row for row in running_up.rows if row.get("name") == "generation")
        async with (
            RetrievalClient(running_up.address) as client,
            GenerationClient(str(generation["address"])) as asked,
        ):
            reply = await client.search(Query(text="when was the port built"), SearchOptions(k=1))
            assert [hit.id for hit in reply.hits] == ["h"]
            question = Question(text="When was the harbour dug?")
            *_, done = [event async for event in asked.generate(question)]
        # Sentences were ranked by vectors of the same model, not by words alone.
        assert isinstance(done, Done) and "by words" not in done.served_by.reason
    finally:
        process.terminate()
        process.wait(timeout=30)
        assert process.stdout is not None
        process.stdout.close()
