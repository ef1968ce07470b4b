"""The command group `nearline bench`, which exists only in a source checkout."""

from __future__ import annotations

import typer

from benchmarks.commands import (
    burst,
    embed,
    experiments,
    failover,
    faults,
    filter,
    gateway,
    hostile,
    ingest,
    live,
    monitor,
    overload,
    preauth,
    recommend,
    retrieval,
    rollout,
    suggest,
    swap,
    upkeep,
)
from nearline_cli.terminal.option_groups import add_command

app = typer.Typer(help="Measure speed and recall.", no_args_is_help=True)
app.command("retrieval")(retrieval.bench_retrieval)
add_command(app, recommend.bench_recommend, "recommend")
add_command(app, swap.bench_swap, "swap")
app.command("rollout")(rollout.bench_rollout)
app.command("experiments")(experiments.bench_experiments)
add_command(app, live.bench_live, "live")
app.command("monitor")(monitor.bench_monitor)
add_command(app, overload.bench_overload, "overload")
app.command("embed")(embed.bench_embed)
add_command(app, ingest.bench_ingest, "ingest")
app.command("filter")(filter.bench_filter)
app.command("gateway")(gateway.bench_gateway)
app.command("faults")(faults.bench_faults)
add_command(app, failover.bench_failover, "failover")
app.command("burst")(burst.bench_burst)
app.command("suggest")(suggest.bench_suggest)
app.command("hostile")(hostile.bench_hostile)
app.command("preauth")(preauth.bench_preauth)
add_command(app, upkeep.bench_upkeep, "upkeep")
