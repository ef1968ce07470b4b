"""Plans the processes of `nearline up`: from ports and counts to what to start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nearline.errors import SettingsError, Unsupported
from nearline.store.snapshot import Store
from nearline_cli.local import bundled_redis
from nearline_cli.local.liveness import answers_http
from nearline_cli.local.metrics_ports import MetricsEndpoint, MetricsOptions, MetricsPorts
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
from nearline_cli.local.router_count import router_core
from nearline_cli.local.service_settings import gateway_scheme
from nearline_cli.local.supervisor import ProcessSpec
from nearline_cli.terminal import options

# The first start of a model may convert it and benchmark its backends.
_EMBEDDING_TIMEOUT_S = 300.0
# Collections are created by API, too.
_ALLOW_EMPTY = ("--allow-empty", "true")
_WITHOUT_REDIS = (
    "running without live changes, ingest queue, users, sessions, budgets and cached answers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The services of this machine and their ports.

    port, embedding_port, generation_port: Ports of the router, the embedding service and the
        generation service; 0 takes a free one.
    also_embedding: Models with an embedding service of their own, in addition to the configured
        one; each takes a free port.
    embedding: Whether any collection was built from text, and needs the embedding service.
    shards: Largest number of shards of a collection. shard_processes: Processes that hold them; 0
        keeps them inside the router. replicas: Copies of each of those processes.
    workers: Router processes that share one port.
    redis: URL that the services use; empty disables Redis; None leaves it to their settings.
    redis_environ: Variables with the URL, for services whose settings name none.
    redis_port: Port of the bundled Redis, which the services then use. Optional.
    milvus_uri: Milvus that routers search instead of FAISS. If empty, their settings apply.
        milvus_token: Its credentials.
    upkeep: Whether to run the service that archives, compacts and trims change logs.
    ingest_port: Port of the ingest service; None runs no queue.
    http_port: Port of the gateway; None runs none.
    port_flag: The option that moves all ports; empty: each port has its own.
    metrics: Where each process has a Prometheus endpoint; None: nowhere.
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
    milvus_uri: str = ""
    milvus_token: str = field(default="", repr=False)
    upkeep: bool = False
    ingest_port: int | None = None
    http_port: int | None = None
    port_flag: str = ""
    metrics: MetricsOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """Processes to start, in this order.

    redis, generation, upkeep, ingest, gateway: At most one each. embedding: The configured model's
        service first. worker: Returns the ingest worker with a number, or None if there is no
        queue. address: Address of the router. http_scheme: Scheme of the gateway's URL. note:
        Message for the user. Optional. metrics: The Prometheus endpoints by name of the process;
        workers add theirs.
    """

    redis: tuple[ProcessSpec, ...]
    embedding: tuple[ProcessSpec, ...]
    shards: tuple[ProcessSpec, ...]
    routers: tuple[ProcessSpec, ...]
    generation: tuple[ProcessSpec, ...]
    upkeep: tuple[ProcessSpec, ...]
    ingest: tuple[ProcessSpec, ...]
    gateway: tuple[ProcessSpec, ...]
    worker: Callable[[int], ProcessSpec] | None
    address: str
    http_scheme: str = "http"
    note: str = ""
    metrics: Mapping[str, MetricsEndpoint] = field(default_factory=dict)

    @property
    def stages(self) -> tuple[tuple[ProcessSpec, ...], ...]:
        """Stages of processes that start together."""
        return (
            # First, and alone: shards and routers read the changes from it.
            self.redis,
            (*self.embedding, *self.shards),
            self.routers,
            (*self.generation, *self.upkeep, *self.ingest),
            self.gateway,
        )

    @property
    def http_address(self) -> str:
        """URL of the gateway; an empty string if there is none."""
        return f"{self.http_scheme}://{self.gateway[0].address}" if self.gateway else ""


def required_services(store: Store) -> tuple[int, bool]:
    """Returns the largest number of shards of a current snapshot, and whether any needs embedding.

    A store without collections gets one shard, and embedding for those to come.
    """
    collections = store.collections()
    if not collections:
        return 1, True
    manifests = [store.manifest(name, store.alias_in_force(name).current) for name in collections]
    shards = max(len(manifest.shards) for manifest in manifests)
    return shards, any(manifest.embedder.fingerprint for manifest in manifests)


@contextlib.contextmanager
def plan_processes(layout: Layout) -> Iterator[ProcessPlan]:
    """Yields the plan, and holds a port that several routers share for the duration of the block.

    Raises:
        SettingsError: A port is taken.
    """
    with contextlib.ExitStack() as stack:
        ports: dict[int, str] = {}
        check_port(layout.host, layout.port, "--port")
        port = layout.port
        if layout.workers > 1:
            shared = stack.enter_context(reserve_port(layout.host, port))
            port = shared.getsockname()[1]
        port = port or free_port(layout.host)
        ports[port] = "--port"
        embedders: list[ProcessSpec] = []
        generation: list[ProcessSpec] = []
        ingest: list[ProcessSpec] = []
        answers = 0
        if layout.embedding:
            taken = _take(ports, layout, layout.embedding_port, "--embedding-port")
            embedders.append(_embedding(layout, taken))
            embedders += [
                _also_embedding(layout, model, number)
                for number, model in enumerate(layout.also_embedding, start=2)
            ]
            # Collections of bare vectors have no texts to answer from.
            answers = _take(ports, layout, layout.generation_port, "--generation-port")
        embedding = ",".join(plan.address for plan in embedders)
        redis, note = _redis(layout, ports)
        redis_url = f"redis://{redis[0].address}/0" if redis else layout.redis
        # Without a Redis, nothing can be changed live.
        has_log = bool(redis_url) or (layout.redis is None and layout.redis_port is None)
        if layout.ingest_port is not None and has_log:
            port_of_ingest = _take(ports, layout, layout.ingest_port, "--ingest-port")
            ingest.append(_ingest(layout, port_of_ingest, f"{layout.host}:{port}", redis_url))
        shards = [
            [
                _shard(layout, number, copy, free_port(layout.host), embedding, redis_url)
                for copy in range(layout.replicas)
            ]
            for number in range(layout.shard_processes)
        ]
        topology = ";".join(
            f"{number}={','.join(plan.address for plan in shards[number % len(shards)])}"
            for number in range(layout.shards if shards else 0)
        )
        if answers:
            generation.append(
                _generation(layout, answers, f"{layout.host}:{port}", embedding, redis_url)
            )
        behind = {
            "--embedding": embedding,
            "--generation": generation[0].address if generation else "",
            "--ingest": ingest[0].address if ingest else "",
        }
        routers = [
            _router(layout, port, behind, topology, worker, redis_url)
            for worker in range(layout.workers)
        ]
        upkeep = []
        if layout.upkeep and has_log:
            upkeep.append(_upkeep(layout, f"{layout.host}:{port}", embedding, redis_url))
        gateway: list[ProcessSpec] = []
        if layout.http_port is not None:
            http_port = _take(ports, layout, layout.http_port, "--http-port")
            behind |= {
                "--retrieval": f"{layout.host}:{port}",
                "--embedding": embedders[0].address if embedders else "",
            }
            gateway.append(_gateway(layout, http_port, behind))
        flat_shards = [plan for copies in shards for plan in copies]
        servers = (redis, embedders, flat_shards, routers, generation, upkeep, ingest, gateway)
        addresses = [plan.address for stage in servers for plan in stage]
        metrics = MetricsPorts(
            layout.metrics, layout.port, [int(one.rpartition(":")[2]) for one in addresses]
        )
        numbered = [tuple(map(metrics.assign, stage)) for stage in servers]
        worker = _workers(layout, f"{layout.host}:{port}", redis_url, metrics) if ingest else None
        yield ProcessPlan(
            redis=numbered[0],
            embedding=numbered[1],
            shards=numbered[2],
            routers=numbered[3],
            generation=numbered[4],
            upkeep=numbered[5],
            ingest=numbered[6],
            gateway=numbered[7],
            worker=worker,
            metrics=metrics.assigned,
            address=f"{layout.host}:{port}",
            http_scheme=gateway_scheme() if gateway else "http",
            note=note,
        )


def _take(ports: dict[int, str], layout: Layout, port: int, flag: str, host: str = "") -> int:
    """Returns a port that is free on the machine and in the plan, and records it; 0 takes any."""
    host, flag = host or layout.host, layout.port_flag or flag
    check_port(host, port, flag)
    if port in ports:
        raise SettingsError(f"{ports[port]} and {flag} are both {port}; choose another one")
    while not port or port in ports:
        port = free_port(host)
    ports[port] = flag
    return port


def _redis(layout: Layout, ports: dict[int, str]) -> tuple[list[ProcessSpec], str]:
    """Plans the bundled Redis; if it cannot run, returns a note that explains why."""
    if layout.redis_port is None:
        return [], f"{_WITHOUT_REDIS}: --no-redis" if layout.redis == "" else ""
    try:
        bundled_redis.find_program()
    except Unsupported as error:
        return [], f"{_WITHOUT_REDIS}: {error.message}"
    port = _take(ports, layout, layout.redis_port, "--redis-port", bundled_redis.HOST)
    return [bundled_redis.redis_spec(layout.store.files, port)], ""


def _also_embedding(layout: Layout, model: ModelSpec, number: int) -> ProcessSpec:
    words = ("--model", model.name, "--dimensions", str(model.dimensions))
    plan = _embedding(layout, free_port(layout.host), *words)
    # Settings of the configured model's weights do not apply to this one.
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


def _spec(
    layout: Layout,
    name: str,
    module: str,
    port: int,
    words: Sequence[str],
    ready_services: tuple[str, ...],
) -> ProcessSpec:
    """Plans a service that may use Redis; `words` are its arguments besides host and port."""
    return ProcessSpec(
        name=name,
        module=module,
        arguments=("--host", layout.host, "--port", str(port), *words),
        environ=layout.redis_environ,
        address=f"{layout.host}:{port}",
        ready_services=ready_services,
        folder=layout.store.files.folder,
    )


def _shard(
    layout: Layout, number: int, copy: int, port: int, embedding: str, redis: str | None
) -> ProcessSpec:
    name = f"shard-{number}" if layout.replicas == 1 else f"shard-{number}-replica-{copy}"
    shards = range(number, layout.shards, layout.shard_processes)
    words = (
        *("--store", layout.store.url, "--shard", ",".join(map(str, shards))),
        *_ALLOW_EMPTY,
        *_address_words({"--embedding": embedding}),
        *_redis_words(redis),
    )
    return _spec(layout, name, "retrieval.shard_server", port, words, SHARD_SERVICES)


def _router(
    layout: Layout,
    port: int,
    behind: Mapping[str, str],
    topology: str,
    worker: int,
    redis: str | None,
) -> ProcessSpec:
    words = ["--store", layout.store.url, *_ALLOW_EMPTY]
    words += [*_redis_words(redis), *_address_words(behind)]
    if topology:
        words += ("--shards", topology)
    environ = layout.redis_environ
    if layout.milvus_uri:
        words += ("--backend", "milvus", "--milvus-uri", layout.milvus_uri)
        if layout.milvus_token:
            # Arguments are visible to every user of the machine.
            environ = {**environ, "NEARLINE_RETRIEVAL_MILVUS_TOKEN": layout.milvus_token}
    if layout.workers > 1:
        words += ("--reuse-port", "true")
    name = "retrieval" if layout.workers == 1 else f"retrieval-{worker}"
    plan = _spec(layout, name, "retrieval", port, words, RETRIEVAL_SERVICES)
    core = router_core(worker, layout.workers)
    return replace(plan, environ=environ, shared_port=layout.workers > 1, core=core)


def _generation(
    layout: Layout, port: int, retrieval: str, embedding: str, redis: str | None
) -> ProcessSpec:
    words = (
        *("--retrieval", retrieval, "--embedding", embedding, "--store", layout.store.url),
        *_redis_words(redis),
    )
    return _spec(layout, "generation", "generation", port, words, GENERATION_SERVICES)


def _upkeep(layout: Layout, retrieval: str, embedding: str, redis: str | None) -> ProcessSpec:
    behind = {"--store": layout.store.url, "--retrieval": retrieval, "--embedding": embedding}
    words = (*_address_words(behind), *_redis_words(redis))
    port = free_port(layout.host)
    # It offers no service of its own: check the health of the server.
    return _spec(layout, "upkeep", "index_builder.maintenance", port, words, ("",))


def _ingest(layout: Layout, port: int, retrieval: str, redis: str | None) -> ProcessSpec:
    words = ("--retrieval", retrieval, *_redis_words(redis))
    return _spec(layout, "ingest", INGEST_MODULE, port, words, INGEST_SERVICES)


def _gateway(layout: Layout, port: int, behind: Mapping[str, str]) -> ProcessSpec:
    spec = _spec(layout, "gateway", "gateway", port, _address_words(behind), ())
    return replace(spec, environ={}, answers=answers_http)


def _workers(
    layout: Layout, retrieval: str, redis: str | None, metrics: MetricsPorts
) -> Callable[[int], ProcessSpec]:
    def worker(number: int) -> ProcessSpec:
        words = ("--retrieval", retrieval, *_redis_words(redis))
        # It has no peers: any port will do.
        plan = _spec(layout, f"worker-{number}", WORKER_MODULE, 0, words, ("",))
        return metrics.assign(replace(plan, address=""))

    return worker


def _address_words(behind: Mapping[str, str]) -> list[str]:
    """Returns arguments that name services, by option; those without an address are left out."""
    return [word for name, address in behind.items() if address for word in (name, address)]


def _redis_words(redis: str | None) -> tuple[str, ...]:
    return () if redis is None else ("--redis", redis)
