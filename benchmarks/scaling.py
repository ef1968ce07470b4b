"""Measures how searches and lists cost with size, shards and callers, and fits a cost model.

    python -m benchmarks.scaling --quick                                      # two minutes
    python -m benchmarks.scaling --work scaling --out scaling.jsonl
    python -m benchmarks.scaling --out scaling.jsonl --fit-only               # measures nothing

Vectors, items and users are made up from a seed and kept in the folder --work, so that a second run
starts at once. Rows of the file --out are not measured again: measure large sizes another time, and
add them. The last table applies the model to the founding scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer

from benchmarks.scaling_parts.capacity import Scenario
from benchmarks.scaling_parts.measured_rows import LISTS, REDIS, SEARCHES, MeasuredRows
from benchmarks.scaling_parts.measurements import CurveSizes, missing_measurements
from benchmarks.scaling_parts.result_tables import print_results
from benchmarks.scaling_parts.search_curve import EMBEDDED, SEPARATE, Turns
from nearline.errors import InvalidRequest, NearlineError
from nearline_cli.terminal.amounts import read_amount
from nearline_cli.terminal.output import print_error, print_note

_KINDS = (SEARCHES, LISTS, REDIS)
_PLACES = (EMBEDDED, SEPARATE)
_QUICK = [
    *("--sizes", "2k", "8k", "--dim", "32", "--queries", "100", "--shards", "1", "2"),
    *("--callers", "1", "8", "--layout", SEPARATE, "--users", "1k"),
    *("--redis-users", "1k", "3k", "--rate", "20", "--rounds", "1", "--seconds", "1"),
]
_SCENARIO = Scenario()
# Callers need others than those that come back.
_LEAST_USERS = 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, fits and prints; returns the exit status."""
    options = _read_options(argv)
    try:
        if options.fit_only and not (options.out and options.out.is_file()):
            raise InvalidRequest(
                "--fit-only fits the rows of --out: name a file of an earlier run", field="out"
            )
        measured = MeasuredRows(options.out)
        if not options.fit_only:
            with _work_folder(options.work) as work:
                asyncio.run(_measure(work, measured, options))
        fields = Scenario._fields
        scenario = Scenario(**{name: getattr(options, f"plan_{name}") for name in fields})
        print_results(measured, scenario, as_json=options.json)
    except NearlineError as error:
        print_error(error)
        return 1
    return 0


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="Use tiny sizes: two minutes, and no real figures.")
    add("--only", nargs="+", choices=_KINDS, default=_KINDS, help="What to measure. [default: all]")
    for name, default, text in (
        ("sizes", (50_000, 200_000, 1_000_000), "Numbers of vectors, and of items of lists"),
        ("shards", (1, 4), "Numbers of shards, of vectors and of lists"),
        ("callers", (1, 8, 64), "Numbers of callers in a closed loop of searches"),
        ("users", (100_000, 1_000_000), "Numbers of users of lists, 1k or more"),
        ("redis-users", (10_000, 30_000, 100_000), "Numbers of users whose state is in Redis"),
    ):
        shown = " ".join(map(str, default))
        add(f"--{name}", type=_users if name == "users" else _size, nargs="+", default=default,
            help=f"{text} ({shown}).")  # fmt: skip
    add("--layout", nargs="+", choices=_PLACES, default=_PLACES,
        help="Shards in the router, or in a process each. [default: both]")  # fmt: skip
    add("--dim", type=_size, default=384, help="Dimensions of a vector (%(default)s).")
    add("--queries", type=_size, default=500, help="Queries with exact answers (%(default)s).")
    add("--index", default="HNSW32,Flat", help="FAISS factory string (%(default)s).")
    add("--recall", type=_share, default=0.95,
        help="Recall@10 that decides the width of a graph (%(default)s).")  # fmt: skip
    add("--rate", type=_amount, default=20.0,
        help="Cold lists per second; hot ones are five times as many (%(default)g).")  # fmt: skip
    add("--rounds", type=_size, default=3, help="Rounds of each point (%(default)s).")
    add("--seconds", type=_amount, default=3.0, help="Seconds of a round (%(default)g).")
    add("--minutes", type=_amount, default=180.0,
        help="Begin nothing that is likely to end later (%(default)g).")  # fmt: skip
    add("--work", type=Path, help="Folder for made-up data, which are kept. [default: temporary]")
    add("--out", type=Path, help="File of JSON lines of the rows; it is continued.")
    add("--fit-only", action="store_true", help="Measure nothing; fit the rows of --out.")
    add("--json", action="store_true", help="Print JSON lines instead of tables.")
    for name, value in _SCENARIO._asdict().items():
        add(f"--plan-{name.replace('_', '-')}", type=_share if name == "busy" else _amount,
            default=value,
            help=f"{name.replace('_', ' ')} of the scenario ({value:,g}).")  # fmt: skip
    given = list(sys.argv[1:] if argv is None else argv)
    return parser.parse_args([*_QUICK, *given] if "--quick" in given else given)


def _amount(text: str) -> float:
    try:
        return read_amount(text)
    except typer.BadParameter as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> int:
    amount = int(_amount(text))
    if not 1 <= amount <= 100_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100M")
    return amount


def _users(text: str) -> int:
    if (users := _size(text)) < _LEAST_USERS:
        raise argparse.ArgumentTypeError(f"{text} is fewer than {_LEAST_USERS:,} users")
    return users


def _share(text: str) -> float:
    if not 0 < (share := _amount(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return share


@contextlib.contextmanager
def _work_folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="nearline-scaling-") as temporary:
        yield Path(temporary)


async def _measure(work: Path, measured: MeasuredRows, options: argparse.Namespace) -> None:
    sizes = CurveSizes(
        only=options.only,
        sizes=options.sizes,
        shards=options.shards,
        callers=options.callers,
        places=options.layout,
        users=options.users,
        redis_users=options.redis_users,
        dim=options.dim,
        queries=options.queries,
        factory=options.index,
        recall=options.recall,
        rate=options.rate,
        turns=Turns(options.rounds, options.seconds),
    )
    missing = list(missing_measurements(work, sizes, measured))
    total_s = sum(one.seconds for one in missing)
    print_note(
        f"{len(missing)} measurements, about {total_s / 60:.0f} minutes on two idle cores; the "
        f"load of this machine is {os.getloadavg()[0]:.1f}"
    )
    since = _clock()
    for number, one in enumerate(missing, 1):
        if since() + one.seconds > options.minutes * 60:
            print_note(f"{one.text}: left out; it needs more than --minutes {options.minutes:g}")
            continue
        print_note(f"{number} of {len(missing)}, at {since():.0f} s: {one.text}")
        async for row in one.rows():
            measured.add(row)


def _clock() -> Callable[[], float]:
    start = time.monotonic()
    return lambda: time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
