"""Measures ratios to baselines briefly, and prints how they drift from the kept ones.

    python -m benchmarks.drift                                     # a minute
    python -m benchmarks.drift --write --rounds 20 --enough 600    # on a quiet machine

A ratio of two servers on the same machine says more about a change than an absolute figure does. A
drift is no failure: the exit status is 1 only if nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.drift_parts.ratio_rounds import DriftSizes, measure_ratios
from benchmarks.drift_parts.ratios import (
    RATIOS,
    Drift,
    Ratio,
    compare,
    read_baseline,
    summarise,
    write_baseline,
)
from nearline.errors import NearlineError, NotReady
from nearline_cli.terminal.output import print_error, print_json, print_note, print_table

BASELINE = Path(__file__).with_name("baselines") / "ratios.json"
_LIMIT_S, _MOST_S = 600.0, 86_400.0
_SIZES = DriftSizes()


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    options = _read_options(argv)
    try:
        before = {} if options.write else read_baseline(options.baseline)
        sizes = _SIZES._replace(rounds=options.rounds, seconds=options.seconds)
        rounds = asyncio.run(_measure(sizes, options.enough))
    except NearlineError as error:
        print_error(error)
        return 1
    now = {name: summarise(values) for name, values in rounds.items()}
    drifts = compare(before, now)
    if options.json:
        for drift in drifts:
            print_json(drift._asdict())
    else:
        print_table(
            ("ratio", "baseline", "now", "change", "remark", "what it is"),
            [_cells(drift) for drift in drifts],
        )
    count = len(next(iter(rounds.values())))
    load = round(os.getloadavg()[0], 1)
    print_note(f"{count} of {options.rounds} rounds; the load of the last minute is {load}")
    if options.write:
        about = {
            "day": datetime.now(UTC).date().isoformat(),
            "cpus": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "load": load,
            "rounds": count,
        }
        write_baseline(options.baseline, now, about)
        print_note(f"wrote {options.baseline}")
    elif not before:
        print_note(f"{options.baseline} has no baseline; write one with --write")
    return 0


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--rounds", type=int, choices=range(1, 101), metavar="N", default=_SIZES.rounds,
        help="Rounds, 1 to 100 (%(default)s).")  # fmt: skip
    add("--seconds", type=_seconds, default=_SIZES.seconds,
        help="Seconds of each of the six parts of a round (%(default)g).")  # fmt: skip
    add("--enough", type=_seconds, default=45.0,
        help="Begin no further round after this many seconds (%(default)g).")  # fmt: skip
    add("--baseline", type=Path, default=BASELINE, help="File of the baseline.")
    add("--write", action="store_true", help="Make what is measured the new baseline.")
    add("--json", action="store_true", help="Print JSON lines instead of a table.")
    return parser.parse_args(argv)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_S:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {_MOST_S:g}")
    return seconds


async def _measure(sizes: DriftSizes, enough_s: float) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(prefix="nearline-drift-") as folder:
        try:
            async with asyncio.timeout(enough_s + _LIMIT_S):
                return await measure_ratios(Path(folder), sizes, enough_s)
        except TimeoutError as error:
            raise NotReady(
                f"no ratios after {enough_s + _LIMIT_S:.0f} s; try again on a quieter machine"
            ) from error


def _cells(drift: Drift) -> tuple[str, ...]:
    change = "-" if drift.change is None else f"{drift.change:+.1%}"
    what, _ = RATIOS[drift.name]
    return (drift.name, _text(drift.before), _text(drift.now), change, drift.remark, what)


def _text(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
