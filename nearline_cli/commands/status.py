"""`nearline status`: shows running services and what they serve."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from gateway import health as gateway_health
from nearline import health
from nearline.clients import AdminClient, EmbeddingClient, IngestClient
from nearline.contract import QueueState
from nearline.errors import (
    NearlineError,
    NotReady,
    PermissionDenied,
    Unauthenticated,
    Unsupported,
)
from nearline.store.snapshot import Store
from nearline.tls import is_loopback
from nearline.v1 import admin_pb2
from nearline_cli.local.bundled_redis import data_folder
from nearline_cli.local.machine_checks import (
    AWAY,
    FAILING,
    FULL,
    PROBLEMS,
    REFUSED,
    SERVING,
    disk_states,
    redis_state,
)
from nearline_cli.local.ports import OFFSETS, answers
from nearline_cli.local.processes import (
    EMBEDDING_SERVICES,
    GENERATION_SERVICES,
    INGEST_SERVICES,
)
from nearline_cli.local.redis_settings import configured_redis
from nearline_cli.terminal import options, output
from nearline_cli.views.collection_view import collection_record, print_collections
from nearline_cli.views.doors import print_doors
from nearline_cli.views.queue_view import describe_queue
from nearline_cli.views.service_checks import feed_problem

# Where a router answers for a service, only the service's own log says why.
_AT_FAULT = "it is loading, draining or away; see its log"


def status(
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the embedding service; empty: skip it. \\[default: the port after the "
            "router's, if a service is there, or else the router itself]",
        ),
    ] = None,
    ingest: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the ingest service; empty: skip it. \\[default: five ports after the "
            "router's, if a service is there, or else the router itself]",
        ),
    ] = None,
    generation: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the generation service; empty: skip it. \\[default: three ports after "
            "the router's, if a service is there, or else the router itself]",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the HTTP gateway; empty: skip it. \\[default: six ports after the "
            "router's, if one is there]",
        ),
    ] = None,
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Redis of the services. \\[default: the one in the settings of a service, else "
            "the bundled one four ports after the router's, if it is there]",
        ),
    ] = "",
    store: options.StoreOption = options.DEFAULT_STORE,
    as_json: output.JsonFlag = False,
) -> None:
    """Show every service, Redis, the disks of this machine, and every collection."""
    services, collections = asyncio.run(
        _ask(
            address,
            _door(address, "embedding") if embedding is None else embedding,
            embedding is not None,
        )
    )
    # Unknown, and so expected, if the router does not answer.
    uses_redis = services[0].get("resources") != [] or any(one["live"] for one in collections)
    services += asyncio.run(
        _ask_queue(
            address, _door(address, "ingest") if ingest is None else ingest, ingest is not None
        )
    )
    services += _generation(
        address,
        _door(address, "generation") if generation is None else generation,
        generation is not None,
    )
    gateway, http_url = _gateway(
        _neighbour(address, "gateway") if http is None else http, http is not None
    )
    services += gateway
    bundled = _neighbour(address, "redis")
    services += _dependencies(
        redis, bundled and f"redis://{bundled}/0", store, collections, uses_redis
    )
    if as_json:
        for record in (*services, *collections):
            output.print_json(record)
    else:
        columns = ("service", "address", "state", "about")
        rows = [[record[name] for name in columns] for record in services]
        output.print_table(columns, rows, wrap=output.SENTENCE_WRAP)
        print_collections(collections)
        if services[0]["state"] in (SERVING, FULL):
            print_doors(address, http_url)
    _raise_problems(services)


def _neighbour(router: str, service: str) -> str:
    """Returns the default address of a service beside a router; empty if that has no port."""
    host, _, port = router.rpartition(":")
    return f"{host}:{int(port) + OFFSETS[service]}" if port.isdigit() else ""


def _door(router: str, service: str) -> str:
    """Returns where to ask for a service: beside a router of this machine, or through the router.

    Through it, if nothing is there and the router is: its port may be the only one that is mapped.
    """
    beside = _neighbour(router, service)
    if not (beside and is_loopback(router)):
        return router
    return router if not _listens(beside) and _listens(router) else beside


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return answers(host.strip("[]"), int(port))


def _raise_problems(services: Sequence[Mapping[str, object]]) -> None:
    """Raises NotReady with whatever does not serve, and the remedies."""
    away = [f"{r['service']} ({r['address']})" for r in services if r["state"] == AWAY]
    problems = [f"not serving: {', '.join(away)}; start it: nearline up"] if away else []
    for record in services:
        if record["state"] in PROBLEMS:
            # A disk names itself.
            name = "" if record["service"] == "disk" else f"{record['service']}: "
            problems.append(f"{name}{record['about']}")
    if problems:
        raise NotReady(". ".join(problems))


def _generation(router: str, address: str, required: bool) -> list[dict[str, object]]:
    """Asks the generation service for its health; unless it is required or wanted, it may be
    absent.
    """
    if not address:
        return []
    found = health.query(address, service=GENERATION_SERVICES[0])
    if not found.why:
        return [_service("generation", address, SERVING, "")]
    if found.is_known:
        return [_service("generation", address, FAILING, _AT_FAULT)]
    if required or _is_wanted(router, GENERATION_SERVICES[0]):
        return [_service("generation", address, AWAY, found.why)]
    return []


def _is_wanted(router: str, service: str) -> bool:
    """Returns whether a service that does not answer belongs to a router.

    `nearline up` gives its router the addresses of the services that it starts, so the router knows
    the health of these alone.
    """
    return health.query(router, service=service).is_known


def _gateway(address: str, required: bool) -> tuple[list[dict[str, object]], str]:
    """Asks the gateway whether it answers; returns its record, and its URL if it does.

    Unless it is required, it may be absent.
    """
    if not address:
        return [], ""
    url, why = gateway_health.find(address)
    if why:
        return [_service("gateway", address, AWAY, why)] if required else [], ""
    return [_service("gateway", address, SERVING, url)], url


def _dependencies(
    redis: str,
    default_redis: str,
    store: str,
    collections: Sequence[Mapping[str, object]],
    uses_redis: bool,
) -> list[dict[str, object]]:
    """Asks Redis and the disks of this machine.

    The bundled Redis may be absent, unless a collection has a problem with its change log; that of
    the settings, if the router does not use it.
    """
    folders = []
    with contextlib.suppress(NearlineError):
        files = Store.open(store).files
        folders = [files.folder, data_folder(files)]
    records = []
    with contextlib.suppress(NearlineError, ImportError):
        configured = configured_redis()
        if url := redis or configured or default_redis:
            found = asyncio.run(redis_state(url))
            troubled = any(
                isinstance(live := one["live"], dict) and live["problem"] for one in collections
            )
            required = redis or troubled or (configured and uses_redis)
            if required or found.state != AWAY:
                records.append(_service("redis", found.address, found.state, found.about))
            if found.folder is not None:
                folders.append(found.folder)
    disks = [_service("disk", one.address, one.state, one.about) for one in disk_states(folders)]
    return records + disks


async def _ask(
    address: str, embedding: str, required: bool
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Asks the router, which comes first, and the embedding service.

    Unless the latter is required or wanted, it may be absent if no collection has a model.
    """
    services, collections = [], []
    async with AdminClient(address) as admin:
        try:
            reply = await admin.serving_status()
        except NearlineError as error:
            services.append(_service("retrieval", address, _state(error), error.message))
        else:
            services.append(_router(address, reply))
            collections = [collection_record(found) for found in reply.collections]
    if embedding:
        async with EmbeddingClient(embedding) as client:
            try:
                info = await client.info()
            except NearlineError as error:
                # The model of a collection that is not served yet is unknown.
                unused = services[0]["state"] != AWAY and all(
                    one["epoch"] and not one["fingerprint"] for one in collections
                )
                if (
                    required
                    or not unused
                    or await asyncio.to_thread(_is_wanted, address, EMBEDDING_SERVICES[0])
                ):
                    services.append(_service("embedding", embedding, _state(error), error.message))
            else:
                about = f"{info.model}, {info.dim} dims, {info.backend}"
                services.append(_service("embedding", embedding, SERVING, about))
    return services, collections


def _router(address: str, reply: admin_pb2.GetServingStatusResponse) -> dict[str, object]:
    problem = feed_problem(reply)
    about = f"nearline {reply.nearline_version}"
    if reply.warning:
        about += f"; not protected: {reply.warning}"
    state = (FULL, problem) if problem else (SERVING, about)
    resources = [
        {
            "resource": one.name,
            "free_bytes": one.free_bytes,
            "total_bytes": one.total_bytes,
            "needed_bytes": one.needed_bytes,
            "problem": one.problem,
        }
        for one in reply.resources
    ]
    return _service("retrieval", address, *state) | {"resources": resources}


def _state(error: NearlineError) -> str:
    """Returns the state of a service that answered with an error, or did not answer."""
    return REFUSED if isinstance(error, Unauthenticated | PermissionDenied) else AWAY


async def _ask_queue(router: str, address: str, required: bool) -> list[dict[str, object]]:
    """Asks the ingest service; unless it is required or wanted, it may be absent."""
    if not address:
        return []
    async with IngestClient(address) as client:
        try:
            queue = await client.queue()
        except NearlineError as error:
            is_away = error.message.startswith(address)
            if (
                not required
                and (is_away or isinstance(error, Unsupported))
                and not await asyncio.to_thread(_is_wanted, router, INGEST_SERVICES[0])
            ):
                return []
            # One that answers may not reach its Redis, for example.
            return [_service("ingest", address, AWAY if is_away else FAILING, error.message)]
    return [_service("ingest", address, SERVING, describe_queue(queue)) | {"queue": _queue(queue)}]


def _queue(queue: QueueState) -> dict[str, object]:
    return {
        "lag": queue.lag,
        "waiting": queue.waiting,
        "in_hand": queue.in_hand,
        "delayed": queue.delayed,
        "oldest_age_s": queue.oldest_age_s,
        "documents_per_s": queue.documents_per_s,
        "workers": len(queue.workers),
        "dead_letters": queue.dead,
        "bytes": queue.bytes,
    }


def _service(name: str, address: str, state: str, about: str) -> dict[str, object]:
    return {"service": name, "address": address, "state": state, "about": about}
