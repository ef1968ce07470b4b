"""The command group `nearline bench`, which exists only in a source checkout."""

from __future__ import annotations

import typer

from benchmarks.commands import (
    burst,
    embed,
    faults,
    filter,
    ingest,
    live,
    monitor,
    recommend,
    retrieval,
    rollout,
    swap,
)

app = typer.Typer(help="Measure speed and recall.", no_args_is_help=True)
app.command("retrieval")(retrieval.bench_retrieval)
app.command("recommend")(recommend.bench_recommend)
app.command("swap")(swap.bench_swap)
app.command("rollout")(rollout.bench_rollout)
app.command("live")(live.bench_live)
app.command("monitor")(monitor.bench_monitor)
app.command("embed")(embed.bench_embed)
app.command("ingest")(ingest.bench_ingest)
app.command("filter")(filter.bench_filter)
app.command("faults")(faults.bench_faults)
app.command("burst")(burst.bench_burst)
