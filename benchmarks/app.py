"""The command group `nearline bench`, which exists only in a source checkout."""

from __future__ import annotations

import typer

from benchmarks.commands import embed, filter, hostile, ingest, lists, live, preauth, search
from nearline_cli.terminal.option_groups import add_command

app = typer.Typer(help="Measure speed and recall.", no_args_is_help=True)
app.command("embed")(embed.bench_embed)
app.command("search")(search.bench_search)
add_command(app, lists.bench_lists, "lists")
add_command(app, live.bench_live, "live")
add_command(app, ingest.bench_ingest, "ingest")
app.command("filter")(filter.bench_filter)
app.command("hostile")(hostile.bench_hostile)
app.command("preauth")(preauth.bench_preauth)
