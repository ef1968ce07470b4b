"""`nearline demo`: indexes this Python's own documentation, serves it and asks questions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import DEFAULT_COLLECTION, PayloadField, Query, SearchOptions
from nearline.errors import NotFound
from nearline.store.snapshot import Store
from nearline_cli.compose.change_log import open_change_log_if_any
from nearline_cli.local.ports import port_after
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.redis_settings import bundled_redis_port, redis_environ
from nearline_cli.local.supervisor import end_on_sigterm, run_supervised
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress
from nearline_cli.views import hits
from nearline_cli.views.process_report import ProcessReport

SHARDS = 2
HITS = 3
QUERIES = (
    "how do I parse a date string",
    "make a temporary directory that is deleted afterwards",
    "run a command and capture its output",
    "count how many times each element occurs in a list",
    "read a csv file",
)
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
        int, typer.Option(min=0, max=65535, help="Port of the router; 0 takes a free one.")
    ] = options.DEFAULT_PORT,
    as_json: output.JsonFlag = False,
) -> None:
    """Index the documentation of your Python, serve it and ask five questions."""
    home = Path(folder) if folder else _home()
    report = ProcessReport(as_json=as_json, verbose=False)
    report.run_until_interrupted(_run(home, port, report, oneshot, as_json))


async def _run(home: Path, port: int, report: ProcessReport, oneshot: bool, as_json: bool) -> None:
    from index_builder.documents import python_docs

    end_on_sigterm()
    corpus = home / "python.jsonl"
    entries, digest = await asyncio.to_thread(python_docs.write_corpus, corpus)
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
    )
    observers = report.change, report.line
    with plan_processes(layout) as processes:
        if processes.note:
            output.print_note(processes.note)
        async with run_supervised([(*processes.redis, *processes.embedding)], *observers):
            await _ensure_snapshot(store, corpus, digest, processes, as_json)
            stages = [processes.routers, processes.generation, processes.gateway]
            async with run_supervised(stages, *observers):
                report.ready(processes.address, http_address=processes.http_address)
                report.flush()
                await _ask(processes.address, as_json)
                if not oneshot:
                    output.print_note(_next(processes, store))
                    await asyncio.get_running_loop().create_future()


async def _ensure_snapshot(
    store: Store, corpus: Path, digest: str, processes: ProcessPlan, as_json: bool
) -> None:
    """Builds unless the current snapshot has this corpus and this model."""
    async with EmbeddingClient(processes.embedding[0].address) as client:
        fingerprint = (await client.info()).fingerprint
        with contextlib.suppress(NotFound):
            current = store.alias_in_force(DEFAULT_COLLECTION).current
            manifest = store.manifest(DEFAULT_COLLECTION, current)
            built_from = [source.sha256 for source in manifest.sources]
            # A snapshot of an older version may lack the word index or the attributes.
            whole = manifest.HasField("lexical") and len(manifest.attributes) > 0
            if whole and built_from == [digest] and manifest.embedder.fingerprint == fingerprint:
                output.print_note(f"reusing snapshot {current}: same corpus, same model")
                return
        redis = f"redis://{processes.redis[0].address}/0" if processes.redis else ""
        await _build(store, corpus, client, redis, as_json)


async def _build(
    store: Store, corpus: Path, client: EmbeddingClient, redis: str, as_json: bool
) -> None:
    # Imported late: pyarrow and faiss are needed for a build only.
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_corpus
    from index_builder.readers.columns import DocumentColumns
    from index_builder.readers.corpus import Corpus

    wanted = BuildOptions(store=store.url, shards=SHARDS)
    # Live changes since the last run are kept.
    async with open_change_log_if_any(store.url, DEFAULT_COLLECTION, redis) as log:
        with open_progress(as_json) as shown:
            result = await build_corpus(
                Corpus([corpus], DocumentColumns()), wanted, client, shown, log
            )
    output.print_note(
        f"snapshot {result.snapshot_id}: {result.documents} documents in {SHARDS} shards, "
        f"recall@10 {result.recall_at_10:.3f} against an exact scan"
    )


async def _ask(address: str, as_json: bool) -> None:
    async with RetrievalClient(address) as client:
        for text in QUERIES:
            start = time.perf_counter()
            reply = await client.search(Query(text=text), _OPTIONS)
            seconds = time.perf_counter() - start
            if as_json:
                output.print_json({"query": text, **hits.reply_record(reply, seconds)})
            else:
                output.console().print(f"\n{text}", style="bold")
                hits.print_hits(reply, seconds)


def _home() -> Path:
    # In a clone, the data go to a folder that git ignores.
    if Path("pyproject.toml").is_file() and Path("proto/nearline").is_dir():
        return Path(".nearline") / "demo"
    import platformdirs

    return Path(platformdirs.user_data_dir("nearline")) / "demo"


def _next(processes: ProcessPlan, store: Store) -> str:
    address = processes.address
    program = Path(sys.argv[0])
    command = os.path.relpath(program) if program.name == "nearline" else "nearline"
    return f"""
The services run until Ctrl-C. Try in another terminal:
  {command} search "compress a file" --address {address}
  {command} search "compress a file" --filter 'kind = "class"' --explain --address {address}
  {command} ask "how do I run a subprocess with a timeout?" --address {address}
  {command} search --item datetime.datetime.strptime --address {address}
  {command} snapshots show --store {os.path.relpath(store.url)}
  {command} build --help        (for your own documents)"""
