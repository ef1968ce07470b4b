"""What runs on a machine, and where: from ports and counts to the processes to start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nearline.errors import NotFound, SettingsError, Unsupported
from nearline.snapshot import Store
from nearline_cli.local import bundled_redis
from nearline_cli.local.model_spec import ModelSpec
from nearline_cli.local.ports import check_port, reserve_port
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    GENERATION_SERVICES,
    INGEST_MODULE,
    INGEST_SERVICES,
    RETRIEVAL_SERVICES,
    SHARD_SERVICES,
    WORKER_MODULE,
    free_port,
)
from nearline_cli.local.supervisor import ProcessSpec
from nearline_cli.terminal import options

# The first start of a model may convert it and measure its backends.
_EMBEDDING_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What runs, and where.

    port, embedding_port, generation_port: of the router, the embedding service and the generation
        service; 0 takes a free one.
    also_embedding: models that have an embedding service of their own beside the one that the
        settings name; each takes a free port.
    embedding: False where no collection was made from text, so that nothing needs the model.
    shards: the most shards that a collection has; shard_processes: processes that hold them, 0
        keeps them inside the router; replicas: copies of each of those processes.
    workers: router processes that share the one port.
    redis: what the services are told to use, empty: none; None: their own settings say.
    redis_environ: variables with such settings, for those that have none of their own.
    redis_port: of the bundled Redis, which they are told to use then; None: none is started.
    policies: file with the policies of surfaces; empty: the router's own setting says.
    milvus_uri: the Milvus that routers ask in place of FAISS; empty: their own settings say.
        milvus_token: what it asks for.
    upkeep: whether something looks after the change logs: archives, compacts, trims.
    ingest_port: of the ingest service, the door of the queue of documents; None: there is no queue.
    """

    store: Store
    shards: int
    embedding: bool = True
    host: str = options.DEFAULT_HOST
    port: int = options.DEFAULT_PORT
    embedding_port: int = options.DEFAULT_PORT + 1
    generation_port: int = options.DEFAULT_PORT + 3
    also_embedding: Sequence[ModelSpec] = ()
    shard_processes: int = 0
    replicas: int = 1
    workers: int = 1
    redis: str | None = None
    redis_environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    redis_port: int | None = None
    policies: str = ""
    milvus_uri: str = ""
    milvus_token: str = field(default="", repr=False)
    upkeep: bool = False
    ingest_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """What to start, in this order.

    redis, generation, upkeep, ingest: none or one. embedding: that of the settings first. worker:
    Gives the worker of the queue with a number, of which there may be any; None where there is no
    queue. address: of the router. note: What people should know; empty: nothing.
    """

    redis: tuple[ProcessSpec, ...]
    embedding: tuple[ProcessSpec, ...]
    shards: tuple[ProcessSpec, ...]
    routers: tuple[ProcessSpec, ...]
    generation: tuple[ProcessSpec, ...]
    upkeep: tuple[ProcessSpec, ...]
    ingest: tuple[ProcessSpec, ...]
    worker: Callable[[int], ProcessSpec] | None
    address: str
    note: str = ""

    @property
    def stages(self) -> tuple[tuple[ProcessSpec, ...], ...]:
        """What starts together, stage after stage."""
        return (
            # First, and alone: shards and routers ask it for what has changed.
            self.redis,
            (*self.embedding, *self.shards),
            self.routers,
            (*self.generation, *self.upkeep, *self.ingest),
        )

    @property
    def generation_address(self) -> str:
        """Where questions are answered; empty where nowhere."""
        return self.generation[0].address if self.generation else ""


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


@contextlib.contextmanager
def plan_processes(layout: Layout) -> Iterator[ProcessPlan]:
    """Yields the processes, and holds a port that several share for the length of the block.

    Raises: SettingsError: a port is taken.
    """
    with contextlib.ExitStack() as held:
        ports: dict[int, str] = {}
        check_port(layout.host, layout.port, "--port")
        port = layout.port
        if layout.workers > 1:
            shared = held.enter_context(reserve_port(layout.host, port))
            port = shared.getsockname()[1]
        port = port or free_port(layout.host)
        ports[port] = "--port"
        embedders: list[ProcessSpec] = []
        generation: list[ProcessSpec] = []
        answers = 0
        if layout.embedding:
            taken = _take(ports, layout.host, layout.embedding_port, "--embedding-port")
            embedders.append(_embedding(layout, taken))
            embedders += [
                _also_embedding(layout, model, number)
                for number, model in enumerate(layout.also_embedding, start=2)
            ]
            # Collections of vectors alone hold no texts to answer from.
            answers = _take(ports, layout.host, layout.generation_port, "--generation-port")
        embedding = ",".join(plan.address for plan in embedders)
        redis, note = _redis(layout, ports)
        kept = f"redis://{redis[0].address}/0" if redis else layout.redis
        shards = [
            [
                _shard(layout, number, copy, free_port(layout.host), embedding, kept)
                for copy in range(layout.replicas)
            ]
            for number in range(layout.shard_processes)
        ]
        topology = ";".join(
            f"{number}={','.join(plan.address for plan in shards[number % len(shards)])}"
            for number in range(layout.shards if shards else 0)
        )
        routers = [
            _router(layout, port, embedding, topology, worker, kept)
            for worker in range(layout.workers)
        ]
        if answers:
            generation.append(
                _generation(layout, answers, f"{layout.host}:{port}", embedding, kept)
            )
        # Where the bundled Redis is not installed, nothing can be changed.
        has_log = bool(kept) or (layout.redis is None and layout.redis_port is None)
        upkeep = [_upkeep(layout, embedding, kept)] if layout.upkeep and has_log else []
        ingest: list[ProcessSpec] = []
        if layout.ingest_port is not None and has_log:
            door = _take(ports, layout.host, layout.ingest_port, "--ingest-port")
            ingest.append(_ingest(layout, door, kept))
        yield ProcessPlan(
            redis=tuple(redis),
            embedding=tuple(embedders),
            shards=tuple(plan for copies in shards for plan in copies),
            routers=tuple(routers),
            generation=tuple(generation),
            upkeep=tuple(upkeep),
            ingest=tuple(ingest),
            worker=_workers(layout, f"{layout.host}:{port}", kept) if ingest else None,
            address=f"{layout.host}:{port}",
            note=note,
        )


def _take(ports: dict[int, str], host: str, port: int, flag: str) -> int:
    """Returns a port that is free, here and in the plan, and notes it there; 0 takes any."""
    check_port(host, port, flag)
    if port in ports:
        raise SettingsError(f"{ports[port]} and {flag} are both {port}; choose another one")
    while not port or port in ports:
        port = free_port(host)
    ports[port] = flag
    return port


def _redis(layout: Layout, ports: dict[int, str]) -> tuple[list[ProcessSpec], str]:
    """Plans the bundled Redis, or tells why there is none."""
    if layout.redis_port is None:
        return [], ""
    try:
        bundled_redis.find_program()
    except Unsupported as error:
        return [], f"no live changes, sessions, budgets and cached answers: {error.message}"
    port = _take(ports, bundled_redis.HOST, layout.redis_port, "--redis-port")
    return [bundled_redis.redis_spec(layout.store.files, port)], ""


def _also_embedding(layout: Layout, model: ModelSpec, number: int) -> ProcessSpec:
    words = ("--model", model.name, "--dimensions", str(model.dimensions))
    plan = _embedding(layout, free_port(layout.host), *words)
    # What the settings say of their model's weights, and beside it, is not about this one.
    return replace(plan, name=f"embedding-{number}", environ=model.environ)


def _embedding(layout: Layout, port: int, *words: str) -> ProcessSpec:
    return ProcessSpec(
        name="embedding",
        module="embedding",
        arguments=(
            *("--host", layout.host, "--port", str(port), "--store", layout.store.url),
            *words,
        ),
        address=f"{layout.host}:{port}",
        ready_services=EMBEDDING_SERVICES,
        ready_timeout_s=_EMBEDDING_TIMEOUT_S,
    )


def _shard(
    layout: Layout, number: int, copy: int, port: int, embedding: str, redis: str | None
) -> ProcessSpec:
    held = range(number, layout.shards, layout.shard_processes)
    return ProcessSpec(
        name=f"shard-{number}" if layout.replicas == 1 else f"shard-{number}-replica-{copy}",
        module="retrieval.shard_server",
        arguments=(
            *("--host", layout.host, "--port", str(port)),
            *("--store", layout.store.url, "--shard", ",".join(map(str, held))),
            *(("--embedding", embedding) if embedding else ()),
            *_redis_words(redis),
        ),
        environ=layout.redis_environ,
        address=f"{layout.host}:{port}",
        ready_services=SHARD_SERVICES,
    )


def _router(
    layout: Layout, port: int, embedding: str, topology: str, worker: int, redis: str | None
) -> ProcessSpec:
    arguments: tuple[str, ...] = (
        *("--host", layout.host, "--port", str(port)),
        *("--store", layout.store.url),
        *_redis_words(redis),
    )
    if embedding:
        arguments += ("--embedding", embedding)
    if topology:
        arguments += ("--shards", topology)
    environ = layout.redis_environ
    if layout.milvus_uri:
        arguments += ("--backend", "milvus", "--milvus-uri", layout.milvus_uri)
        if layout.milvus_token:
            # Arguments can be read by everybody on the machine.
            environ = {**environ, "NEARLINE_RETRIEVAL_MILVUS_TOKEN": layout.milvus_token}
    if layout.policies:
        arguments += ("--policies", layout.policies)
    if layout.workers > 1:
        arguments += ("--reuse-port", "true")
    return ProcessSpec(
        name="retrieval" if layout.workers == 1 else f"retrieval-{worker}",
        module="retrieval",
        arguments=arguments,
        environ=environ,
        address=f"{layout.host}:{port}",
        ready_services=RETRIEVAL_SERVICES,
    )


def _generation(
    layout: Layout, port: int, retrieval: str, embedding: str, redis: str | None
) -> ProcessSpec:
    return ProcessSpec(
        name="generation",
        module="generation",
        arguments=(
            *("--host", layout.host, "--port", str(port)),
            *("--retrieval", retrieval, "--embedding", embedding, "--store", layout.store.url),
            *_redis_words(redis),
        ),
        environ=layout.redis_environ,
        address=f"{layout.host}:{port}",
        ready_services=GENERATION_SERVICES,
    )


def _upkeep(layout: Layout, embedding: str, redis: str | None) -> ProcessSpec:
    port = free_port(layout.host)
    return ProcessSpec(
        name="upkeep",
        module="index_builder.maintenance",
        arguments=(
            *("--host", layout.host, "--port", str(port), "--store", layout.store.url),
            *(("--embedding", embedding) if embedding else ()),
            *_redis_words(redis),
        ),
        environ=layout.redis_environ,
        address=f"{layout.host}:{port}",
        # Its health is that of the server: it offers no service.
        ready_services=("",),
    )


def _ingest(layout: Layout, port: int, redis: str | None) -> ProcessSpec:
    return ProcessSpec(
        name="ingest",
        module=INGEST_MODULE,
        arguments=("--host", layout.host, "--port", str(port), *_redis_words(redis)),
        environ=layout.redis_environ,
        address=f"{layout.host}:{port}",
        ready_services=INGEST_SERVICES,
    )


def _workers(layout: Layout, retrieval: str, redis: str | None) -> Callable[[int], ProcessSpec]:
    def worker(number: int) -> ProcessSpec:
        return ProcessSpec(
            name=f"worker-{number}",
            module=WORKER_MODULE,
            # Nobody looks for it but who started it: any port will do.
            arguments=(
                *("--host", layout.host, "--port", "0", "--retrieval", retrieval),
                *_redis_words(redis),
            ),
            environ=layout.redis_environ,
            address="",
            ready_services=("",),
        )

    return worker


def _redis_words(redis: str | None) -> tuple[str, ...]:
    return () if redis is None else ("--redis", redis)
