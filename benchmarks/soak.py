"""Soak of the Compose layout: `python -m benchmarks.soak --minutes 20`.

Runs the services of compose.yaml as processes, with their probes and restarts, under a mixed load
of searches, lists, answers, HTTP, live writes, interactions and ingestion. Builds go live every few
minutes. In the first third, one process after the other is killed; then none, so that processes
live long enough to be judged. It prints a JSON object a line, the last of which has the
figures and the verdict; the exit code is 1 if a bar is missed:

- no request failed: none lacked a complete reply when its budget of --budget seconds had passed,
  while its caller tried again as long as the service was unavailable or overloaded;
- the memory of no process grows: its slope after the kills and its warm-up is below --slope MiB per
  hour with 95 % confidence. A process is "growing" if its slope is above with the same confidence,
  else "unproven". Redis is not judged by its slope, but by its peaks;
- the peaks of Redis's memory and of the entries of the change log are hardly higher in the last
  third than in the second, though as much was written; the log is trimmed every few minutes;
- no container is over its mem_limit, nor Redis over its maxmemory;
- whatever was killed came back, and each container ended within its grace period.

Twenty minutes are the least for all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fleet import sandbox
from benchmarks.fleet.compose import ComposeFleet, compose_fleet
from benchmarks.fleet.image_folders import ADDED, image_folders
from benchmarks.soak_parts.samples import Samples

_ROOT = Path(__file__).resolve().parents[1]
_DOCUMENTS = 200
_WAYS = ("north", "south", "east", "west")
_PLACES = (
    *("mills", "castles", "meadows", "vineyards", "quarries", "harbours", "forests", "villages"),
    *("marshes", "abbeys", "factories", "orchards", "bridges", "gorges", "dunes", "markets"),
)
_GOODS = (
    *("grain", "coal", "salt", "timber", "wool", "iron", "wine", "bricks", "glass", "paper"),
    *("cattle", "sugar", "copper", "cotton", "stone", "oil", "fruit", "letters", "guests", "tea"),
)
# Documents that live writes change: fewer than those of builds.
_WRITTEN = 40
_REDIS_SHARE = 0.85
_REDIS_MAX = 512 << 20
# Peak in the last third, compared with the second. What is never trimmed has 1.5.
_PEAK_RATIO = 1.25
_BACK_S = 180.0
# Upkeep keeps young snapshots for an hour, and with them the change log; a soak is shorter.
_ADDED = {
    **ADDED,
    "NEARLINE_UPKEEP_KEEP_AGE": "2m",
    "NEARLINE_UPKEEP_KEEP_BUILDS": "0",
    "NEARLINE_UPKEEP_KEEP": "0",
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=_positive, default=20.0)
    parser.add_argument("--rate", type=_positive, default=10.0, help="Requests per second.")
    parser.add_argument("--budget", type=_positive, default=60.0, help="Seconds of a request.")
    parser.add_argument("--kill-s", type=_positive, default=36.0, help="Seconds between kills.")
    parser.add_argument("--build-s", type=_positive, default=180.0, help="Seconds between builds.")
    parser.add_argument("--sample-s", type=_positive, default=2.0, help="Seconds between samples.")
    parser.add_argument("--warm-up-s", type=_positive, default=300.0, help="Of each process.")
    parser.add_argument("--slope", type=_positive, default=16.0, help="MiB per hour at most.")
    return parser.parse_args()


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


class Soak:
    """One run.

    Args:
        fleet: The services.
        documents: Folder of the documents to build from.
        options: Options of the command.
    """

    def __init__(self, fleet: ComposeFleet, documents: Path, options: argparse.Namespace) -> None:
        self._fleet = fleet
        self._documents = documents
        self._options = options
        self._began = time.monotonic()
        self._samples = Samples(fleet)
        self._taken = 0
        self._built = 0
        self._failed_builds = 0
        self._kills = 0
        self._not_back: list[str] = []

    async def run(self) -> dict[str, Any]:
        """Returns the figures with the bars that were missed."""
        options = self._options
        await self._build()
        await self._fleet.up()
        self._report("serving")
        words = ["--write", "--retry", "--documents", str(_DOCUMENTS), "--written", str(_WRITTEN)]
        words += ["--rate", str(options.rate), "--budget", str(options.budget)]
        load = self._fleet.start_client("load", "benchmarks.fleet.load", words)
        self._began = time.monotonic()
        work = [self._repeat(options.sample_s, self._sample)]
        work += [self._repeat(options.kill_s, self._kill)]
        work += [self._repeat(options.build_s, self._build)]
        tasks = [asyncio.create_task(one) for one in work]
        # A task that fails ends the run: without samples, nothing would be judged.
        done, _ = await asyncio.wait(
            tasks, timeout=options.minutes * 60, return_when=asyncio.FIRST_EXCEPTION
        )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        await load.stop()
        text = load.log.read_text("utf-8").strip().splitlines()
        stops = await self._fleet.down()
        killed = [stop.name for stop in stops if stop.killed]
        return self._figures(json.loads(text[-1]) if text else {}, killed)

    def _third_s(self, number: int) -> float:
        """Returns when a third of the run ends."""
        return self._began + number * 20.0 * float(self._options.minutes)

    async def _repeat(self, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(self._began + number * every_s - time.monotonic())
            await work()

    async def _sample(self) -> None:
        figures = await self._samples.take()
        self._taken += 1
        if self._taken % 15 == 1:
            self._report("sample", figures)

    async def _kill(self) -> None:
        """Kills a container, and waits until it is ready again."""
        if time.monotonic() > self._third_s(1):
            return
        services = list(self._fleet.services)
        running = [name for name in services if self._fleet.containers(name)]
        (container, *_) = self._fleet.containers(running[self._kills % len(running)])
        self._kills += 1
        self._report("kill", {"container": container.name})
        container.kill()
        began = time.monotonic()
        while container.ready:
            await asyncio.sleep(0.05)
        try:
            await container.wait_ready(_BACK_S)
        except Exception as error:
            self._not_back.append(f"{container.name}: {error}")
        seconds = round(time.monotonic() - began, 1)
        self._report("back", {"container": container.name, "seconds": seconds})

    async def _build(self) -> None:
        """Builds a snapshot that goes live, in which a tenth of the documents have changed."""
        for number in range(_DOCUMENTS):
            if not self._built or number % 10 == self._built % 10:
                text = _document(number, self._built)
                (self._documents / f"d{number}.md").write_text(text, "utf-8")
        self._built += 1
        volume = f"{self._documents}:/documents:ro"
        done = await self._fleet.run("build", ["--corpus", "/documents"], [volume])
        self._failed_builds += done.code != 0
        self._report("build", {"code": done.code, "end": done.output[-1500:] if done.code else ""})

    def _figures(self, requests: dict[str, Any], killed: list[str]) -> dict[str, Any]:
        samples = self._samples
        failed = {kind: one["failed"] for kind, one in requests.items() if one["failed"]}
        trends = self._trends()
        verdicts = {str(one["container"]): one["verdict"] for one in trends}
        thirds = [
            [one for one in samples.redis if self._third_s(at) < one.at_s <= self._third_s(at + 1)]
            for at in (1, 2)
        ]
        redis = [max((one.bytes for one in third), default=0) for third in thirds]
        entries = [max((one.log_entries for one in third), default=0) for third in thirds]
        bars = {
            "requests": not failed and bool(requests),
            "memory": set(verdicts.values()) == {"steady"} and not samples.over_limit,
            "redis": _is_bounded(redis) and max(redis) < _REDIS_SHARE * _REDIS_MAX,
            "change log": _is_bounded(entries),
            "builds": not self._failed_builds,
            "restarts": not self._not_back,
            "grace": not killed,
        }
        return {
            "requests": requests,
            "processes": trends,
            "not_steady": {name: one for name, one in verdicts.items() if one != "steady"},
            "over_limit": dict(samples.over_limit),
            "redis_bytes_peaks": redis,
            "log_entries_peaks": entries,
            "builds": self._built,
            "kills": self._kills,
            "not_back": self._not_back,
            "killed_at_stop": killed,
            "missed": [name for name, met in bars.items() if not met],
        }

    def _trends(self) -> list[dict[str, object]]:
        """Returns the trends of the processes that lived on after the kills."""
        options, found = self._options, []
        for (name, pid), life in self._samples.lives.items():
            trend = life.rss_trend(self._third_s(1), options.warm_up_s)
            if trend is None or name.startswith("redis"):
                continue
            low, slope, high = (one / (1 << 20) for one in (trend.low, trend.per_hour, trend.high))
            above = "growing" if low > options.slope else "unproven"
            found.append(
                {
                    "container": name,
                    "pid": pid,
                    "seconds": round(life.times_s[-1] - life.times_s[0]),
                    "rss_mib": [life.rss_bytes[0] >> 20, life.rss_bytes[-1] >> 20],
                    "slope_mib_per_h": [round(low, 1), round(slope, 1), round(high, 1)],
                    "files": [life.files[0], max(life.files), life.files[-1]],
                    "verdict": "steady" if high < options.slope else above,
                }
            )
        return found

    def _report(self, event: str, fields: Mapping[str, object] | None = None) -> None:
        at = round(time.monotonic() - self._began, 1)
        print(json.dumps({"event": event, "at_s": at, **(fields or {})}), flush=True)


def _is_bounded(peaks: Sequence[int]) -> bool:
    """Returns whether the second of two peaks is hardly higher than the first."""
    before, after = peaks
    return 0 < after <= _PEAK_RATIO * before


def _document(number: int, version: int) -> str:
    """Returns a document about a river, unlike the others; each version ends otherwise."""
    draw = random.Random(number)
    places = " and ".join(draw.sample(_PLACES, 3))
    goods = ", ".join(draw.sample(_GOODS, 4))
    boats = number * 7 + version
    return (
        f"# River {number}\n\nThe river {number} flows {draw.choice(_WAYS)} past {places}. "
        f"Its boats carry {goods}.\n\nThe {version}th survey counted {boats} boats.\n"
    )


async def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="nearline-soak-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        documents = folder / "documents"
        documents.mkdir()
        images = await asyncio.to_thread(image_folders)
        file = _ROOT / "compose.yaml"
        async with compose_fleet(file, folder / "fleet", images, added=_ADDED) as fleet:
            figures = await Soak(fleet, documents, options).run()
    print(json.dumps({"event": "verdict", **figures}), flush=True)
    return int(bool(figures["missed"]))


if __name__ == "__main__":
    chosen = _options()
    if why := sandbox.why_not():
        sys.exit(why)
    sys.exit(asyncio.run(_run(chosen)))
