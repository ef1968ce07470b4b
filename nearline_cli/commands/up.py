"""`nearline up`: every service of this machine as supervised processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated

import typer

from nearline.errors import NotFound, SettingsError
from nearline.snapshot import Store
from nearline_cli.compose import milvus_target
from nearline_cli.compose.build_context import print_note
from nearline_cli.local.autoscaler import WorkerPool, run_autoscaler
from nearline_cli.local.model_spec import parse_model
from nearline_cli.local.process_plan import Layout, ProcessPlan, plan_processes
from nearline_cli.local.scaling_policy import ScalingOptions
from nearline_cli.local.supervisor import ProcessSpec, Supervisor
from nearline_cli.terminal import options, output
from nearline_cli.views.process_report import ProcessReport


@contextlib.asynccontextmanager
async def run_supervised(
    stages: Sequence[Sequence[ProcessSpec]], report: ProcessReport
) -> AsyncIterator[None]:
    """Keeps processes alive for the length of the block.

    Raises: SettingsError, NotReady: a process did not come up.
    """
    stop, started = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(stages, report.change, report.line)
    running = asyncio.create_task(supervisor.run(stop, started.set))
    waiter = asyncio.create_task(started.wait())
    try:
        await asyncio.wait((running, waiter), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        yield
    finally:
        waiter.cancel()
        stop.set()
        await running


@contextlib.asynccontextmanager
async def run_workers(
    processes: ProcessPlan, scaling: ScalingOptions, report: ProcessReport
) -> AsyncIterator[None]:
    """Has workers do what is in the queue, if there is one, for the length of the block."""
    if processes.worker is None or not scaling.max_workers:
        yield
        return
    pool = WorkerPool(processes.worker, report.change, report.line)
    async with run_autoscaler(processes.ingest[0].address, pool, scaling, report.scaled):
        yield


def up(
    store: options.StoreOption = options.DEFAULT_STORE,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = options.DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the router; 0 takes a free one.")
    ] = options.DEFAULT_PORT,
    embedding_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the embedding service. \\[default: the port after --port]",
        ),
    ] = None,
    also_embedding: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL[:DIMENSIONS]",
            help="Start an embedding service of this model, too, on a free port, for snapshots "
            "that were made with it; may be repeated.",
        ),
    ] = None,
    generation_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the generation service. \\[default: three after --port]"
        ),
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate", help="Run every shard in a process of its own.")
    ] = False,
    shard_processes: Annotated[
        int,
        typer.Option(
            "--shard-processes",
            "--shards-processes",
            min=0,
            max=64,
            help="Deal the shards to this many processes.",
            metavar="N",
        ),
    ] = 0,
    replicas: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            help="Processes that hold a copy of each shard; two or more imply --separate.",
            metavar="N",
        ),
    ] = 1,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Router processes that share the port.", metavar="N")
    ] = 1,
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Redis for live changes, sessions, budgets and cached answers, "
            "redis://host:port/0. \\[default: the bundled one, unless the services' settings name "
            "another]",
        ),
    ] = "",
    redis_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the bundled Redis. \\[default: four after --port]"
        ),
    ] = None,
    no_redis: Annotated[
        bool,
        typer.Option(
            "--no-redis", help="Start no Redis: no live changes, no sessions, no cached answers."
        ),
    ] = False,
    ingest_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the ingest service. \\[default: five after --port]"
        ),
    ] = None,
    max_workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            help="Most workers of the queue of documents; as many run as it needs. 0: none.",
            metavar="N",
        ),
    ] = 2,
    min_workers: Annotated[
        int, typer.Option(min=0, max=64, help="Workers that run at any time.", metavar="N")
    ] = 0,
    policies: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Policies of surfaces, TOML. \\[default: the built-in ones]"
        ),
    ] = "",
    backend: Annotated[
        options.Backend | None,
        typer.Option(
            help="What searches; milvus goes with --milvus-uri. \\[default: faiss, unless the "
            "router's settings name another]",
        ),
    ] = None,
    milvus_uri: milvus_target.MilvusUriOption = "",
    milvus_token: milvus_target.MilvusTokenOption = "",
    upkeep: Annotated[
        bool,
        typer.Option(
            help="Archive live changes, compact them into a new snapshot when there are enough, "
            "and trim their log."
        ),
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Pass on every log line of the services.")
    ] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Run every service of this machine until Ctrl-C, and restart what dies."""
    # Imported late: it loads the settings' library, and most commands end before they need it.
    from nearline_cli.local.service_settings import check_settings

    check_settings()
    milvus = backend is options.Backend.MILVUS
    if milvus and not milvus_uri:
        raise SettingsError("--backend milvus needs --milvus-uri http://HOST:19530")
    if milvus and (separate or shard_processes or replicas > 1):
        raise SettingsError(
            "--backend milvus has no shards of ours; leave --separate, --shard-processes and "
            "--replicas out"
        )
    if no_redis and (ingest_port is not None or min_workers):
        raise SettingsError(
            "--ingest-port and --min-workers are of a queue in Redis; leave them or --no-redis out"
        )
    scaling = ScalingOptions(min_workers=min_workers, max_workers=max_workers)
    opened = Store.open(store)
    shards, embedding = required_services(opened)
    if also_embedding and not embedding:
        raise SettingsError(
            f"no collection of {opened.url} was made from text, so nothing needs an embedding "
            "service; leave --also-embedding out"
        )
    layout = Layout(
        store=opened,
        shards=shards,
        embedding=embedding,
        host=host,
        port=port,
        embedding_port=_beside(port, 1, embedding_port),
        generation_port=_beside(port, 3, generation_port),
        also_embedding=[parse_model(one) for one in also_embedding or ()],
        shard_processes=min(shards, shard_processes or (shards if separate or replicas > 1 else 0)),
        replicas=replicas,
        workers=workers,
        redis="" if no_redis else redis or None,
        redis_environ={} if no_redis or redis else redis_environ(),
        redis_port=bundled_redis_port(port, redis_port, redis, no_redis=no_redis),
        policies=policies,
        milvus_uri=milvus_uri if milvus else "",
        milvus_token=milvus_token if milvus else "",
        upkeep=upkeep and not no_redis,
        ingest_port=None if no_redis else _beside(port, 5, ingest_port),
    )
    report = ProcessReport(as_json=as_json, verbose=verbose)

    async def run() -> None:
        end_on_sigterm()
        with plan_processes(layout) as processes:
            if processes.note:
                print_note(processes.note)
            async with run_supervised(processes.stages, report):
                report.ready(processes.address)
                if not as_json:
                    output.console().print(
                        f'Ask: nearline search "your question" --address {processes.address}   '
                        "(Ctrl-C stops everything)"
                    )
                async with run_workers(processes, scaling, report):
                    await asyncio.get_running_loop().create_future()

    # Being told to stop is how this command ends well.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(run())


def end_on_sigterm() -> None:
    """Lets SIGTERM unwind the running task as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def bundled_redis_port(
    port: int, redis_port: int | None, redis: str = "", *, no_redis: bool = False
) -> int | None:
    """Returns the port for the bundled Redis; None: there is to be none.

    Args:
        port: Of the router.
        redis_port: What was asked for; None: the default, beside the router's.
        redis: Another Redis to use; empty: none was named.
        no_redis: Whether there is to be none at all.
    Raises: SettingsError: two of these exclude each other, or `redis` is no address.
    """
    if no_redis and (redis or redis_port is not None):
        raise SettingsError("--no-redis goes with neither --redis nor --redis-port; leave one out")
    if redis and redis_port is not None:
        raise SettingsError("--redis-port is of the bundled Redis, --redis names another; drop one")
    if redis:
        check_redis(redis)
    if redis or no_redis or (redis_port is None and configured_redis()):
        return None
    return _beside(port, 4, redis_port)


def configured_redis() -> str:
    """Returns the Redis that environment or file name to any of the services; empty: none."""
    return next(filter(None, _redis_settings().values()), "")


def redis_environ() -> Mapping[str, str]:
    """Returns variables that name it to the services whose own settings name none."""
    url = configured_redis()
    lacking = [section for section, own in _redis_settings().items() if not own]
    return {f"NEARLINE_{section.upper()}_REDIS": url for section in lacking} if url else {}


def _redis_settings() -> Mapping[str, str]:
    """Returns what the settings of each service that may use a Redis say, by section."""
    from nearline.settings import load_from_process
    from nearline_cli.local.service_settings import SETTINGS, settings_class

    named = {}
    for _, module, name in SETTINGS:
        try:
            kind = settings_class(module, name)
        except ImportError:
            continue  # Not installed here, so it does not run here.
        if "redis" in kind.model_fields:
            named[kind.section] = str(getattr(load_from_process(kind, ()), "redis", ""))
    return named


def check_redis(url: str) -> None:
    """Raises SettingsError where the services could not read such an address."""
    with contextlib.suppress(ImportError):
        from retrieval.redis_client.connection import connect

        connect(url)


def required_services(store: Store) -> tuple[int, bool]:
    """Returns the most shards that a current snapshot has, and whether any needs the model.

    Raises: NotFound: nothing was published; says how to build.
    """
    collections = store.collections()
    if not collections:
        raise NotFound(
            f"store {store.url} has no published snapshot; build one: "
            f"nearline build --corpus FILE --store {store.url}"
        )
    manifests = [store.manifest(name, store.alias_in_force(name).current) for name in collections]
    shards = max(len(manifest.shards) for manifest in manifests)
    return shards, any(manifest.embedder.fingerprint for manifest in manifests)


def _beside(port: int, number: int, asked: int | None) -> int:
    """Returns the port that was asked for, else the one so far after the router's; 0: a free
    one."""
    if asked is not None:
        return asked
    return port + number if port else 0
