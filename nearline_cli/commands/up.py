"""`nearline up`: runs every service of this machine as supervised processes."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from nearline.errors import SettingsError
from nearline.store.snapshot import Store
from nearline_cli.compose import milvus_target
from nearline_cli.local.autoscaler import run_workers
from nearline_cli.local.metrics_ports import MetricsOptions
from nearline_cli.local.metrics_targets import metrics_targets
from nearline_cli.local.model_spec import parse_model
from nearline_cli.local.ports import port_after
from nearline_cli.local.process_plan import Layout, plan_processes, required_services
from nearline_cli.local.redis_settings import bundled_redis_port, redis_environ
from nearline_cli.local.router_count import default_router_count
from nearline_cli.local.scaling_policy import ScalingOptions
from nearline_cli.local.supervisor import StateChange, end_on_sigterm, run_supervised
from nearline_cli.terminal import options, output
from nearline_cli.views.process_report import ProcessReport

_HIGHEST_PORT = 65_535


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
            help="Also start an embedding service for this model, on a free port, to serve "
            "snapshots built with it; may be repeated.",
        ),
    ] = None,
    generation_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the generation service. \\[default: three after --port]"
        ),
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate", help="Run every shard in its own process.")
    ] = False,
    shard_processes: Annotated[
        int,
        typer.Option(
            "--shard-processes",
            "--shards-processes",
            min=0,
            max=64,
            help="Distribute the shards over this many processes.",
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
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Router processes that share the port. \\[default: one for every two cores, at "
            "most four; one without Redis]",
            metavar="N",
        ),
    ] = None,
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
            "--no-redis", help="Run without Redis: no live changes, sessions or cached answers."
        ),
    ] = False,
    ingest_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the ingest service. \\[default: five after --port]"
        ),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the HTTP gateway. \\[default: six after --port]"
        ),
    ] = None,
    no_http: Annotated[
        bool, typer.Option("--no-http", help="Run without the HTTP gateway.")
    ] = False,
    max_workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            help="Maximum number of ingest workers; as many run as the queue needs. 0: none.",
            metavar="N",
        ),
    ] = 2,
    min_workers: Annotated[
        int, typer.Option(min=0, max=64, help="Minimum number of ingest workers.", metavar="N")
    ] = 0,
    metrics_port: Annotated[
        str,
        typer.Option(
            metavar="PORT|off",
            help="First port of the Prometheus endpoints; each process gets one of its own. "
            "\\[default: those in the settings of the services, else from 20 after --port]",
            show_default=False,
        ),
    ] = "",
    metrics_host: Annotated[
        str,
        typer.Option(
            envvar="NEARLINE_METRICS_HOST",
            metavar="ADDRESS",
            help="Address of the Prometheus endpoints.",
        ),
    ] = options.DEFAULT_HOST,
    backend: Annotated[
        options.Backend | None,
        typer.Option(
            help="Search backend; milvus needs --milvus-uri. \\[default: faiss, unless the "
            "router's settings name another]",
        ),
    ] = None,
    milvus_uri: milvus_target.MilvusUriOption = "",
    milvus_token: milvus_target.MilvusTokenOption = "",
    upkeep: Annotated[
        bool,
        typer.Option(
            help="Archive live changes, compact them into a new snapshot when enough have "
            "accumulated, trim the log, and train models of users."
        ),
    ] = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show every log line of the services.")
    ] = False,
    as_json: output.JsonFlag = False,
) -> None:
    """Run all services on this machine until Ctrl-C, and restart any that die.

    For example: nearline up --store .nearline/store
    """
    # Imported late: it loads the settings of every service.
    from nearline_cli.local.service_settings import check_calls_between_services, check_settings

    check_settings()
    check_calls_between_services()
    milvus = backend is options.Backend.MILVUS
    if milvus and not milvus_uri:
        raise SettingsError("--backend milvus needs --milvus-uri http://HOST:19530")
    if milvus and (separate or shard_processes or replicas > 1):
        raise SettingsError(
            "--backend milvus has no shards to distribute; leave out --separate, --shard-processes "
            "and --replicas"
        )
    if no_redis and (ingest_port is not None or min_workers):
        raise SettingsError(
            "--ingest-port and --min-workers need the queue in Redis; leave them out, or leave out "
            "--no-redis"
        )
    scaling = ScalingOptions(min_workers=min_workers, max_workers=max_workers)
    opened = Store.open(store)
    shards, embedding = required_services(opened)
    if also_embedding and not embedding:
        raise SettingsError(
            f"no collection of {opened.url} was built from text, so no embedding service is "
            "needed; leave out --also-embedding"
        )
    layout = Layout(
        store=opened,
        shards=shards,
        embedding=embedding,
        host=host,
        port=port,
        embedding_port=port_after(port, "embedding", embedding_port),
        generation_port=port_after(port, "generation", generation_port),
        also_embedding=[parse_model(model) for model in also_embedding or ()],
        shard_processes=min(shards, shard_processes or (shards if separate or replicas > 1 else 0)),
        replicas=replicas,
        workers=workers or default_router_count(shares_state=not no_redis),
        redis="" if no_redis else redis or None,
        redis_environ={} if no_redis or redis else redis_environ(),
        redis_port=bundled_redis_port(port, redis_port, redis, no_redis=no_redis),
        milvus_uri=milvus_uri if milvus else "",
        milvus_token=milvus_token if milvus else "",
        upkeep=upkeep and not no_redis,
        ingest_port=None if no_redis else port_after(port, "ingest", ingest_port),
        http_port=None if no_http else port_after(port, "gateway", http_port),
        metrics=_metrics_options(metrics_port, metrics_host),
    )
    report = ProcessReport(as_json=as_json, verbose=verbose)

    async def run() -> None:
        end_on_sigterm()
        with (
            plan_processes(layout) as processes,
            metrics_targets(processes, layout, output.print_note) as targets,
        ):
            if processes.note:
                output.print_note(processes.note)
            if not opened.collections():
                output.print_note(
                    f"{opened.url} has no collection yet; create one: nearline collections create "
                    f"NAME --address {processes.address}"
                )

            def changed(change: StateChange) -> None:
                report.change(change)
                targets.change(change)

            async with run_supervised(processes.stages, changed, report.line):
                report.ready(
                    processes.address, processes.metrics, processes.http_address, targets.file
                )
                report.hint(
                    f'Ask: nearline search "your question" --address {processes.address}   '
                    "(Ctrl-C stops everything)"
                )
                async with run_workers(processes, scaling, changed, report.line, report.scaled):
                    await asyncio.get_running_loop().create_future()

    report.run_until_interrupted(run())


def _metrics_options(port: str, host: str) -> MetricsOptions | None:
    """Returns where to serve metrics. Raises: SettingsError: `port` is neither a port nor "off"."""
    if port == "off":
        return None
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT):
        raise SettingsError(
            f"--metrics-port is {port!r}; give the first port, from 1 to {_HIGHEST_PORT}, or off"
        )
    return MetricsOptions(port=int(port or 0), host=host)
