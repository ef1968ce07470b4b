"""Checks that every alert, rule and panel shows something: `python -m benchmarks.sight`.

Runs `nearline up` with every service in processes of its own, a Prometheus that finds them by the
discovery file, load and faults; then asks that Prometheus every expression of deploy/. Takes five
to ten minutes. The exit status is 1 if an expression returned no series throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.sight_parts.chat_server import chat_server
from benchmarks.sight_parts.deployment import (
    build_store,
    deployment,
    find_prometheus,
    item_ids,
    prometheus,
    tls_environ,
)
from benchmarks.sight_parts.expressions import Expression, PrometheusClient, expressions
from benchmarks.sight_parts.load import AllCallers
from benchmarks.sight_parts.scenario import FaultScenario
from nearline.errors import NearlineError
from nearline_cli.terminal.output import print_error, print_json, print_note, print_table

# So that what happens rarely happens within minutes.
_SETTINGS = {
    "NEARLINE_RETRIEVAL_RECALL_SAMPLE": "0.5",
    "NEARLINE_RETRIEVAL_DRIFT_SAMPLE": "1",
    "NEARLINE_RETRIEVAL_DRIFT_WINDOW_S": "2",
    "NEARLINE_RETRIEVAL_DRIFT_REBUILD": "0.0001",
    "NEARLINE_RETRIEVAL_RECORD_SHARE": "0.2",
    "NEARLINE_RETRIEVAL_MAX_CALLS": "64",
    "NEARLINE_UPKEEP_EVERY_S": "2",
    # Only when a rebuild is requested: each snapshot starts the comparison of drift again.
    "NEARLINE_UPKEEP_SHARE": "100",
    "NEARLINE_UPKEEP_FORCE_PROMOTE": "sight",
    "NEARLINE_GENERATION_SMALL_PRICE": "1/2",
    "NEARLINE_GENERATION_LARGE_PRICE": "3/4",
}
_LIMITS = "[default]\nconcurrent = 40\n"


class Shown(NamedTuple):
    """An expression, and the number of series that it returned."""

    expression: Expression
    series: int

    @property
    def is_missing(self) -> bool:
        """Whether it returned nothing, for no known reason."""
        return not self.series and not self.expression.not_here


def main(argv: Sequence[str] | None = None) -> int:
    """Runs, prints a table, and returns the exit status."""
    options = _read_options(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="nearline-sight-") as folder:
            shown = asyncio.run(_look(Path(folder), find_prometheus(options.prometheus)))
    except NearlineError as error:
        print_error(error)
        return 1
    rows = sorted(shown, key=lambda one: (bool(one.series), one.expression.place))
    if options.json:
        for one in rows:
            print_json(one.expression._asdict() | {"series": one.series})
    else:
        print_table(("series", "where", "expression"), [_cells(one) for one in rows])
    missing = sum(one.is_missing for one in shown)
    excused = sum(not one.series for one in shown) - missing
    print_note(
        f"{len(shown)} expressions: {len(shown) - missing - excused} return data, {excused} cannot "
        f"here, {missing} return nothing"
    )
    return int(missing > 0)


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sight", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--prometheus", default="", help="Program. Default: that in the path.")
    parser.add_argument("--json", action="store_true", help="Print JSON, one object per line.")
    return parser.parse_args(argv)


def _cells(one: Shown) -> tuple[str, str, str]:
    count = str(one.series) if one.series else one.expression.not_here or "NONE"
    return count, one.expression.place, " ".join(one.expression.query.split())


async def _look(folder: Path, program: str) -> list[Shown]:
    with chat_server() as model:
        environ = await _environ(folder, model)
        os.environ.update(environ)  # The clients of this process find the certificates there.
        print_note("building a store of Python's documentation")
        store = await build_store(folder, environ)
        start_s = time.time()
        with prometheus(program, folder, store) as address:
            client = PrometheusClient(address)
            async with deployment(store, environ) as up:
                print_note(f"{up.targets} lists the processes")
                load = AllCallers(up, item_ids(folder), Path(environ["NEARLINE_TLS_CA"]))
                async with load.running():
                    await FaultScenario(up, store, load, client, print_note).run()
                    end_s = time.time()
            return [
                Shown(one, await client.series(one.query, start_s, end_s)) for one in expressions()
            ]


async def _environ(folder: Path, model: str) -> Mapping[str, str]:
    environ = {**os.environ, **_SETTINGS}
    limits = folder / "limits.toml"
    limits.write_text(_LIMITS, "utf-8")
    return (
        environ
        | await tls_environ(folder)
        | {
            "NEARLINE_LIMITS": str(limits),
            "NEARLINE_GENERATION_SMALL": f"small@{model}",
            "NEARLINE_GENERATION_LARGE": f"large@{model}",
        }
    )


if __name__ == "__main__":
    sys.exit(main())
