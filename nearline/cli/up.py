"""`nearline up`: every service of this machine as supervised processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from nearline.cli import options, output
from nearline.cli.ports import check_port, reserve
from nearline.cli.processes import (
    EMBEDDING_SERVICES,
    GENERATION_SERVICES,
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    free_port,
    parse_event,
)
from nearline.cli.supervisor import Change, Plan, State, Supervisor
from nearline.errors import NotFound, SettingsError
from nearline.snapshot import Store

# The first start of a model may convert it and measure its backends.
_EMBEDDING_TIMEOUT_S = 300.0
_LOUD = ("warning", "error", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What runs, and where.

    port, embedding_port, generation_port: of the router, the embedding service and the generation
        service; 0 takes a free one.
    embedding: False where no collection was made from text, so that nothing needs the model.
    shards: the most shards that a collection has; shard_processes: processes that hold them, 0
        keeps them inside the router; replicas: copies of each of those processes.
    workers: router processes that share the one port.
    """

    store: Store
    shards: int
    embedding: bool = True
    host: str = options.DEFAULT_HOST
    port: int = options.DEFAULT_PORT
    embedding_port: int = options.DEFAULT_PORT + 1
    generation_port: int = options.DEFAULT_PORT + 3
    shard_processes: int = 0
    replicas: int = 1
    workers: int = 1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """What to start, in this order. embedding, generation: none or one. address: of the router."""

    embedding: tuple[Plan, ...]
    shards: tuple[Plan, ...]
    routers: tuple[Plan, ...]
    generation: tuple[Plan, ...]
    address: str

    @property
    def generation_address(self) -> str:
        """Where questions are answered; empty where nowhere."""
        return self.generation[0].address if self.generation else ""


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
            min=0, max=65535, help="Port of the embedding service. [default: the port after --port]"
        ),
    ] = None,
    generation_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the generation service. [default: three after --port]"
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
    )
    report = Report(as_json=as_json, verbose=verbose)

    async def run() -> None:
        end_on_sigterm()
        with planned(layout) as processes:
            stages = (
                (*processes.embedding, *processes.shards),
                processes.routers,
                processes.generation,
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


@contextlib.contextmanager
def planned(layout: Layout) -> Iterator[Processes]:
    """Gives the processes, and holds a port that several share for the length of the block.

    Raises: SettingsError: a port is taken.
    """
    with contextlib.ExitStack() as held:
        check_port(layout.host, layout.port, "--port")
        port = layout.port
        if layout.workers > 1:
            shared = held.enter_context(reserve(layout.host, port))
            port = shared.getsockname()[1]
        port = port or free_port(layout.host)
        embedders = []
        if layout.embedding:
            check_port(layout.host, layout.embedding_port, "--embedding-port")
            embedding_port = layout.embedding_port or free_port(layout.host)
            if port == embedding_port:
                raise SettingsError(
                    f"--port and --embedding-port are both {port}; choose another one"
                )
            embedders.append(_embedding(layout.host, embedding_port))
        embedding = ",".join(plan.address for plan in embedders)
        shards = [
            [
                _shard(layout, number, copy, free_port(layout.host))
                for copy in range(layout.replicas)
            ]
            for number in range(layout.shard_processes)
        ]
        topology = ";".join(
            f"{number}={','.join(plan.address for plan in shards[number % len(shards)])}"
            for number in range(layout.shards if shards else 0)
        )
        routers = [
            _router(layout, port, embedding, topology, worker) for worker in range(layout.workers)
        ]
        generation = []
        if layout.embedding:
            # Collections of vectors alone hold no texts to answer from.
            check_port(layout.host, layout.generation_port, "--generation-port")
            generation_port = layout.generation_port or free_port(layout.host)
            if generation_port in (port, embedding_port):
                raise SettingsError(
                    f"--generation-port {generation_port} is the port of another service; choose "
                    "another one"
                )
            generation.append(
                _generation(layout.host, generation_port, f"{layout.host}:{port}", embedding)
            )
        yield Processes(
            embedding=tuple(embedders),
            shards=tuple(plan for copies in shards for plan in copies),
            routers=tuple(routers),
            generation=tuple(generation),
            address=f"{layout.host}:{port}",
        )


def _embedding(host: str, port: int) -> Plan:
    return Plan(
        name="embedding",
        module="embedding",
        arguments=("--host", host, "--port", str(port)),
        address=f"{host}:{port}",
        ready_services=EMBEDDING_SERVICES,
        ready_timeout_s=_EMBEDDING_TIMEOUT_S,
    )


def _shard(layout: Layout, number: int, copy: int, port: int) -> Plan:
    held = range(number, layout.shards, layout.shard_processes)
    return Plan(
        name=f"shard-{number}" if layout.replicas == 1 else f"shard-{number}-replica-{copy}",
        module="retrieval.shard_server",
        arguments=(
            *("--host", layout.host, "--port", str(port)),
            *("--store", layout.store.url, "--shard", ",".join(map(str, held))),
        ),
        address=f"{layout.host}:{port}",
        ready_services=SHARD_SERVICES,
    )


def _router(layout: Layout, port: int, embedding: str, topology: str, worker: int) -> Plan:
    arguments: tuple[str, ...] = (
        *("--host", layout.host, "--port", str(port)),
        *("--store", layout.store.url),
    )
    if embedding:
        arguments += ("--embedding", embedding)
    if topology:
        arguments += ("--shards", topology)
    if layout.workers > 1:
        arguments += ("--reuse-port", "true")
    return Plan(
        name="retrieval" if layout.workers == 1 else f"retrieval-{worker}",
        module="retrieval",
        arguments=arguments,
        address=f"{layout.host}:{port}",
        ready_services=RETRIEVAL_SERVICES,
    )


def _generation(host: str, port: int, retrieval: str, embedding: str) -> Plan:
    return Plan(
        name="generation",
        module="generation",
        arguments=(
            *("--host", host, "--port", str(port)),
            *("--retrieval", retrieval, "--embedding", embedding),
        ),
        address=f"{host}:{port}",
        ready_services=GENERATION_SERVICES,
    )


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
