"""Measures the work of GPUs: embedding, exact search, graphs, and a GPU that is killed.

    python -m benchmarks.gpu --out gpu.json

Needs a GPU and `nearline-server[standard-gpu]`; all data are made up from a seed. Prints every
figure with its bar and the limit of the card. Parts whose results are in the file are not measured
again. --rehearse runs everything in small on the CPU, which shows that it works, and no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import build_part, embedding_part, flat_part, kill_part
from benchmarks.gpu_parts.figures import COLUMNS, Figure, table_row
from benchmarks.gpu_parts.session import REHEARSAL, Session, Sizes
from embedding.devices import free_bytes
from nearline.errors import InvalidRequest, NearlineError, NotReady
from nearline_cli.local.gpu_probe import FAISS_GPU_WHEELS, probe_gpus
from nearline_cli.sizing.cards import CARDS, Card
from nearline_cli.terminal.amounts import read_amount
from nearline_cli.terminal.output import print_error, print_note, print_table

PARTS: Mapping[str, Callable[[Session], Awaitable[list[Figure]]]] = {
    "embedding": embedding_part.measure_embedding,
    "flat": flat_part.measure_flat,
    "flat-large": flat_part.measure_large_flat,
    "build": build_part.measure_build,
    "kill": kill_part.measure_kill,
}
_PACKAGES = ("nearline", "torch", "faiss-cpu", *FAISS_GPU_WHEELS)
_FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status: 1 if a part failed."""
    options = _read_options(argv)
    try:
        card, machine = _find_card(options)
        record = _read_record(options.out)
    except NearlineError as error:
        print_error(error)
        return _FAILED
    failures = 0
    with tempfile.TemporaryDirectory(prefix="nearline-gpu-", dir=options.folder or None) as folder:
        session = Session(
            card=card,
            sizes=REHEARSAL if options.rehearse else Sizes(),
            folder=Path(folder),
            seed=options.seed,
            rehearsal=options.rehearse,
        )
        for part in options.part or PARTS:
            done = record.get(part)
            if done and done["rehearsal"] == options.rehearse and not options.again:
                continue
            print_note(f"{part} ...")
            start = time.perf_counter()
            try:
                figures = asyncio.run(_measure(part, session))
            # One part that fails, in whatever way, must not lose the others.
            except Exception as error:
                failures += 1
                print_note(f"{part} failed: {type(error).__name__}: {error}")
                continue
            record[part] = {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.perf_counter() - start, 1),
                "rehearsal": options.rehearse,
                "sizes": asdict(session.sizes),
                "seed": options.seed,
                "machine": machine,
                "figures": [asdict(figure) for figure in figures],
            }
            _write_record(options.out, record)
    _print(record)
    return _FAILED if failures else 0


async def _measure(part: str, session: Session) -> list[Figure]:
    return await PARTS[part](session)


def _read_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--part", action="append", choices=list(PARTS), help="Part to measure; may be repeated."
    )
    parser.add_argument("--out", type=Path, help="JSON file of the results; it is continued.")
    parser.add_argument("--again", action="store_true", help="Measure parts that it has, too.")
    parser.add_argument("--folder", type=Path, help="Folder for 20 GB of temporary files.")
    parser.add_argument(
        "--gpu", choices=list(CARDS), help="Card whose limits apply. [default: by its name]"
    )
    parser.add_argument(
        "--bandwidth", type=read_amount, help="Bytes per second in place of the card's: 3.35T."
    )
    parser.add_argument(
        "--flops", type=read_amount, help="fp16 operations per second in place of the card's: 989T."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the data (%(default)s).")
    parser.add_argument(
        "--rehearse", action="store_true", help="Run in small on the CPU; needs no GPU."
    )
    return parser.parse_args(argv)


def _find_card(options: argparse.Namespace) -> tuple[Card, dict[str, object]]:
    """Returns the limits of the card, and what describes the machine.

    Raises: NotReady: there is no GPU. InvalidRequest: its limits are not known.
    """
    probe = probe_gpus()
    name = probe.gpus[0].name if probe.gpus else ""
    if not options.rehearse and not free_bytes():
        raise NotReady(
            "torch finds no GPU; run nearline doctor to see what is missing, or try the command "
            "without one: python -m benchmarks.gpu --rehearse"
        )
    known = options.gpu or next((one for one in CARDS if one in name.lower().split()), "")
    if options.rehearse:
        known = known or next(iter(CARDS))
    if not known and not (options.bandwidth and options.flops):
        raise InvalidRequest(
            f"the limits of {name or 'this GPU'} are not known; name the nearest card with --gpu "
            f"({', '.join(CARDS)}), or give --bandwidth and --flops of its datasheet",
            field="gpu",
        )
    card = CARDS[known] if known else Card(memory=0, bandwidth=0, flops=0)
    card = replace(
        card,
        bandwidth=options.bandwidth or card.bandwidth,
        flops=options.flops or card.flops,
    )
    machine: dict[str, object] = {
        "card": "rehearsal, not a GPU" if options.rehearse else name or known,
        "limits_of": known,
        "bandwidth": card.bandwidth,
        "flops": card.flops,
        "driver": probe.driver,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {package: found for package in _PACKAGES if (found := _version(package))},
    }
    return card, machine


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read_record(path: Path | None) -> dict[str, Any]:
    """Returns the results of a file by part. Raises InvalidRequest: it has none."""
    if path is None or not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for part in record.values():
            list(map(_figure, part["figures"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f"{path} has no results of this command ({type(error).__name__}: {error}); name "
            "another file, or remove it",
            field="out",
        ) from error
    return record


def _write_record(path: Path | None, record: Mapping[str, object]) -> None:
    if path is not None:
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        new.replace(path)


def _figure(values: Mapping[str, Any]) -> Figure:
    return Figure(**values)


def _print(record: Mapping[str, Any]) -> None:
    rows = [
        table_row(part, _figure(figure), rehearsal=found["rehearsal"])
        for part, found in record.items()
        for figure in found["figures"]
    ]
    if rows:
        print_table(COLUMNS, rows)
    for part, found in record.items():
        machine = found["machine"]
        packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
        print_note(
            f"{part}: {found['date']}, {found['seconds']:g} s, {machine['card']}, driver "
            f"{machine['driver'] or 'none'}, {machine['cores']} cores, {packages}"
        )


if __name__ == "__main__":
    sys.exit(main())
