"""`nearline demo`: indexes this Python's own documentation, serves it and asks questions."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nearline.clients import EmbeddingClient, GenerationClient, RetrievalClient
from nearline.contract import (
    Audience,
    PayloadField,
    Query,
    Question,
    RecommendOptions,
    SearchOptions,
)
from nearline.store.snapshot import Store
from nearline_cli.compose.local_index import ensure_snapshot
from nearline_cli.local.ports import port_after
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.redis_settings import bundled_redis_port, redis_environ
from nearline_cli.local.supervisor import end_on_sigterm, run_supervised
from nearline_cli.terminal import options, output
from nearline_cli.views import hits
from nearline_cli.views.answers import show_answer
from nearline_cli.views.process_report import ProcessReport
from nearline_cli.views.recommendations import print_recommendations, recommendation_record

SHARDS = 2
HITS = 3
QUERIES = (
    "how do I parse a date string",
    "make a temporary directory that is deleted afterwards",
    "run a command and capture its output",
    "count how many times each element occurs in a list",
    "read a csv file",
)
LOOKED_AT = "subprocess.run"
# Answered; near what is documented, but not in it; about something else.
QUESTIONS = (
    "how do I run a subprocess with a timeout?",
    "how do I connect to a PostgreSQL database?",
    "how long does a potato have to bake?",
)
_ANSWER_S = 60.0
_LIST = RecommendOptions(n=HITS, payload=frozenset({PayloadField.TITLE}), explain=True)
_OPTIONS = SearchOptions(k=HITS, payload=frozenset({PayloadField.TITLE, PayloadField.TEXT}))


def demo(
    oneshot: Annotated[
        bool, typer.Option("--oneshot", help="Exit after the answers instead of staying up.")
    ] = False,
    folder: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder for the corpus and the store. \\[default: .nearline/demo, or the user's "
            "data folder]",
        ),
    ] = "",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="First port of the services; 0 takes free ones.")
    ] = options.DEFAULT_PORT,
    as_json: output.JsonFlag = False,
) -> None:
    """Index the documentation of your Python and serve it: searches, a list, answers.

    It asks five questions of the search, recommends what goes with what was looked at, and asks
    three questions: one that the documentation answers, one that it may not answer, and one about
    something else. Then it stays up, for you to try more.
    """
    home = Path(folder) if folder else _home()
    report = ProcessReport(as_json=as_json, verbose=False)
    report.run_until_interrupted(_run(home, port, report, oneshot, as_json))


async def _run(home: Path, port: int, report: ProcessReport, oneshot: bool, as_json: bool) -> None:
    # Imported late: pyarrow is needed for a build only.
    from index_builder.documents import python_docs
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    end_on_sigterm()
    corpus = home / "python.jsonl"
    entries = await asyncio.to_thread(python_docs.write_corpus, corpus)
    output.print_note(
        f"{entries} entries of the documentation of Python {python_docs.python_version()}: {corpus}"
    )
    store = Store.open(str(home / "store"))
    layout = Layout(
        store=store,
        shards=SHARDS,
        port=port,
        embedding_port=port_after(port, "embedding"),
        generation_port=port_after(port, "generation"),
        redis_environ=redis_environ(),
        redis_port=bundled_redis_port(port, None),
        http_port=port_after(port, "gateway"),
        port_flag="--port",
    )
    observers = report.change, report.line
    with plan_processes(layout) as processes:
        if processes.note:
            output.print_note(processes.note)
        async with run_supervised([(*processes.redis, *processes.embedding)], *observers):
            redis = f"redis://{processes.redis[0].address}/0" if processes.redis else ""
            async with EmbeddingClient(processes.embedding[0].address) as client:
                files = Corpus([corpus.absolute()], DocumentColumns())
                await ensure_snapshot(
                    store, files, client, shards=SHARDS, redis=redis, as_json=as_json
                )
            stages = [processes.routers, processes.generation, processes.gateway]
            async with run_supervised(stages, *observers):
                report.ready(processes.address, http_address=processes.http_address)
                report.flush()
                await _search(processes.address, as_json)
                await _recommend(processes.address, as_json)
                await _answer(processes.address, as_json)
                if not oneshot:
                    output.print_note(_next(processes, store))
                    await asyncio.get_running_loop().create_future()


async def _search(address: str, as_json: bool) -> None:
    async with RetrievalClient(address) as client:
        for text in QUERIES:
            start = time.perf_counter()
            reply = await client.search(Query(text=text), _OPTIONS)
            seconds = time.perf_counter() - start
            if as_json:
                output.print_json({"query": text, **hits.reply_record(reply, seconds)})
            else:
                _print_title(text)
                hits.print_hits(reply, seconds)


async def _recommend(address: str, as_json: bool) -> None:
    """Shows a list for somebody who looked at an item, with the reason of each entry."""
    async with RetrievalClient(address) as client:
        start = time.perf_counter()
        reply = await client.recommend(Audience(item_ids=(LOOKED_AT,)), _LIST)
        seconds = time.perf_counter() - start
    if as_json:
        record = recommendation_record(reply, seconds)
        output.print_json({"looked_at": LOOKED_AT, **record})
    else:
        _print_title(f"for somebody who looked at {LOOKED_AT}")
        print_recommendations(reply, seconds)


async def _answer(address: str, as_json: bool) -> None:
    """Asks the questions, and shows what comes: an answer, closest passages or a refusal."""
    async with GenerationClient(address) as client:
        for text in QUESTIONS:
            if not as_json:
                _print_title(text)
            question = Question(text=text)
            await show_answer(client, question, timeout_s=_ANSWER_S, as_json=as_json)


def _print_title(text: str) -> None:
    output.console().print(f"\n{text}", style="bold")


def _home() -> Path:
    # In a clone, the data go to a folder that git ignores.
    if Path("pyproject.toml").is_file() and Path("proto/nearline").is_dir():
        return Path(".nearline") / "demo"
    import platformdirs

    return Path(platformdirs.user_data_dir("nearline")) / "demo"


def _next(processes: ProcessPlan, store: Store) -> str:
    address, http = processes.address, processes.http_address
    program = Path(sys.argv[0])
    command = os.path.relpath(program) if program.name == "nearline" else "nearline"
    search = f"{http}/v1/collections/default/search"
    return f"""
The services run until Ctrl-C: gRPC at {address}, HTTP at {http} (try {http}/openapi.json).
In another terminal:
  {command} search "compress a file" --address {address}
  {command} search "compress a file" --filter 'kind = "class"' --explain --address {address}
  {command} recommend --item {LOOKED_AT} --explain --address {address}
  {command} ask "{QUESTIONS[0]}" --address {address}
  curl -s {search} --json '{{"query": {{"text": "compress a file"}}}}'
  {command} snapshots show --store {os.path.relpath(store.url)}
And for your own documents:
  {command} ask "a question" --folder DIR
  {command} build --help"""
