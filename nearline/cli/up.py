"""`nearline up`: every service of this machine as supervised processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated

import typer

from nearline.cli import options, output
from nearline.cli.layout import Layout, planned
from nearline.cli.processes import parse_event
from nearline.cli.supervisor import Change, Plan, State, Supervisor
from nearline.errors import NotFound, SettingsError
from nearline.snapshot import Store

_LOUD = ("warning", "error", "critical")


class Report:
    """Tells people, or programs, what the supervisor does."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self._json = as_json
        self._verbose = verbose
        self._latest: dict[str, Change] = {}
        self._ready = False

    def change(self, change: Change) -> None:
        """Takes a change of state."""
        known = self._latest.get(change.name)
        self._latest[change.name] = change
        if self._json:
            output.print_json({"event": "state", **_record(change)})
        elif change.state is State.DIED:
            _say(f"{change.name} {change.reason}; starting it again in {change.retry_in_s:g} s")
        elif change.state is State.STARTING and known is None:
            _say(f"{change.name} is starting")
        elif change.state is State.SERVING and self._ready:
            _say(f"{change.name} serves again, pid {change.pid}")

    def line(self, name: str, line: str) -> None:
        """Takes a log line of a process; warnings and errors are passed on."""
        event = parse_event(line)
        if self._verbose or str(event.get("level")) in _LOUD:
            sys.stderr.write(f"[{name}] {line}\n")

    def ready(self, address: str) -> None:
        """Says that everything serves, and prints the table of addresses."""
        self._ready = True
        changes = list(self._latest.values())
        if self._json:
            for change in changes:
                output.print_json({"event": "process", **_record(change)})
            output.print_json({"event": "ready", "address": address})
            return
        output.print_table(
            ("name", "address", "pid", "state"),
            [(c.name, c.address, str(c.pid), c.state.value) for c in changes],
        )


@contextlib.asynccontextmanager
async def supervised(stages: Sequence[Sequence[Plan]], report: Report) -> AsyncIterator[None]:
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
    from nearline.cli.service_settings import check_settings

    check_settings()
    opened = Store.open(store)
    shards, embedding = needs(opened)
    if embedding_port is None:
        embedding_port = port + 1 if port else 0
    if generation_port is None:
        generation_port = port + 3 if port else 0
    layout = Layout(
        store=opened,
        shards=shards,
        embedding=embedding,
        host=host,
        port=port,
        embedding_port=embedding_port,
        generation_port=generation_port,
        shard_processes=min(shards, shard_processes or (shards if separate or replicas > 1 else 0)),
        replicas=replicas,
        workers=workers,
        redis="" if no_redis else redis or None,
        redis_environ={} if no_redis or redis else redis_environ(),
        redis_port=bundled_port(port, redis_port, redis, no_redis=no_redis),
        upkeep=upkeep and not no_redis,
    )
    report = Report(as_json=as_json, verbose=verbose)

    async def run() -> None:
        end_on_sigterm()
        with planned(layout) as processes:
            if processes.note:
                _say(processes.note)
            stages = (
                # First, and alone: shards and routers ask it for what has changed.
                processes.redis,
                (*processes.embedding, *processes.shards),
                processes.routers,
                (*processes.generation, *processes.upkeep),
            )
            async with supervised(stages, report):
                report.ready(processes.address)
                if not as_json:
                    output.console().print(
                        f'Ask: nearline search "your question" --address {processes.address}   '
                        "(Ctrl-C stops everything)"
                    )
                await asyncio.get_running_loop().create_future()

    # Being told to stop is how this command ends well.
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(run())


def end_on_sigterm() -> None:
    """Lets SIGTERM unwind the running task as Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def bundled_port(
    port: int, redis_port: int | None, redis: str = "", *, no_redis: bool = False
) -> int | None:
    """Gives the port for the bundled Redis; None: there is to be none.

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
    if redis_port is None:
        return port + 4 if port else 0
    return redis_port


def configured_redis() -> str:
    """Gives the Redis that environment or file name to any of the services; empty: none."""
    return next(filter(None, _redis_settings().values()), "")


def redis_environ() -> Mapping[str, str]:
    """Gives variables that name it to the services whose own settings name none."""
    url = configured_redis()
    lacking = [section for section, own in _redis_settings().items() if not own]
    return {f"NEARLINE_{section.upper()}_REDIS": url for section in lacking} if url else {}


def _redis_settings() -> Mapping[str, str]:
    """Gives what the settings of each service that may use a Redis say, by section."""
    from nearline.cli.service_settings import SETTINGS, kind_of
    from nearline.settings import load_from_process

    named = {}
    for _, module, name in SETTINGS:
        try:
            kind = kind_of(module, name)
        except ImportError:
            continue  # Not installed here, so it does not run here.
        if "redis" in kind.model_fields:
            named[kind.section] = str(getattr(load_from_process(kind, ()), "redis", ""))
    return named


def check_redis(url: str) -> None:
    """Raises SettingsError where the services could not read such an address."""
    with contextlib.suppress(ImportError):
        from retrieval.redis_state import connect

        connect(url)


def needs(store: Store) -> tuple[int, bool]:
    """Gives the most shards that a current snapshot has, and whether any needs the model.

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


def _record(change: Change) -> dict[str, object]:
    record: dict[str, object] = {
        "name": change.name,
        "address": change.address,
        "pid": change.pid,
        "state": change.state.value,
    }
    if change.reason:
        record |= {"reason": change.reason, "retry_in_s": change.retry_in_s}
    return record


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
