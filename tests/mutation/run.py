"""Tests the tests: changes the code in one random place after another, and runs what is nearest.

    python -m tests.mutation.run --sample 300 --seed 1 --session .cache/mutation/session.jsonl

Each result is a line of the session file; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant, mutated
from tests.mutation.nearest_tests import TestFinder
from tests.mutation.sample import AREAS, area_of, draw, read_modules
from tests.mutation.trial import Checkout, Limits, Outcome

ROOT = Path(__file__).parents[2]
PACKAGES = sorted({area.partition(":")[0] for area in AREAS})


class Session:
    """A file of one sample and of what became of its mutants, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sample: list[Mutant] = []
        self.results: dict[Mutant, dict[str, Any]] = {}
        self.asked: dict[str, Any] = {}
        if path.exists():
            first, *rest = path.read_text("utf-8").splitlines()
            header = json.loads(first)
            self.asked = header["asked"]
            self.sample = [Mutant(**fields) for fields in header["sample"]]
            for result in map(json.loads, rest):
                self.results[Mutant(**result["mutant"])] = result

    def begin(self, asked: dict[str, Any], sample: Sequence[Mutant]) -> None:
        """Writes which mutants are to be tried."""
        self.asked, self.sample = asked, list(sample)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._append({"asked": asked, "sample": [asdict(mutant) for mutant in sample]})

    def add(self, mutant: Mutant, result: dict[str, Any]) -> None:
        """Writes the result of one mutant; a later one replaces an earlier one."""
        line = {"mutant": asdict(mutant), **result}
        self.results[mutant] = line
        self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _difference(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"a/{path}", f"b/{path}", lineterm="", n=1
    )
    return "\n".join(lines)


def report(session: Session) -> str:
    """Returns the figures by package and area, and the survivors with their changes."""
    counts: Counter[tuple[str, str]] = Counter()
    for mutant, result in session.results.items():
        area = area_of(mutant.path) or "other"
        for name in {area, area.partition(":")[0], "all"}:
            counts[name, result["outcome"]] += 1
    rows = [("area", "mutants", "killed", "timeouts", "survived", "noticed")]
    names = {name for name, _ in counts}
    for name in sorted(names, key=lambda n: (n == "all", n)):
        killed, timeouts, survived = (counts[name, str(outcome)] for outcome in Outcome)
        total = killed + timeouts + survived
        share = f"{(killed + timeouts) / total:.0%}"
        rows.append((name, str(total), str(killed), str(timeouts), str(survived), share))
    lines = [f"{row[0]:<24}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    lines.append("\nSurvivors:")
    for mutant, result in sorted(session.results.items()):
        if result["outcome"] == Outcome.SURVIVED:
            note = f" ({result['note']})" if result["note"] else ""
            lines.append(f"\n{mutant.path}:{mutant.line} {mutant.family}{note}\n{result['diff']}")
    return "\n".join(lines)


def _try_all(
    session: Session, checkout: Checkout, limits: Limits, again: bool, only: Sequence[str]
) -> None:
    """Tries what has no result yet, and with `again` what survived; `only` names places."""
    finder = TestFinder(checkout.folder)
    for number, mutant in enumerate(session.sample, 1):
        if only and not {mutant.path, f"{mutant.path}:{mutant.line}"} & set(only):
            continue
        earlier = session.results.get(mutant)
        if earlier and not (again and earlier["outcome"] == Outcome.SURVIVED):
            continue
        before = (checkout.folder / mutant.path).read_text("utf-8")
        after = mutated(before, mutant)
        if after is None or (
            earlier and _difference(mutant.path, before, after) != earlier["diff"]
        ):
            print(f"{mutant.path}:{mutant.line} has changed since; left as it was", file=sys.stderr)
            continue
        verdict = checkout.judge(mutant.path, after, finder.nearest(mutant.path), limits)
        result = {**asdict(verdict), "diff": _difference(mutant.path, before, after)}
        session.add(mutant, result)
        print(
            f"{number}/{len(session.sample)} {verdict.outcome} {verdict.seconds:.0f} s "
            f"{mutant.path}:{mutant.line} {mutant.family} {verdict.test}",
            flush=True,
        )


def _verify(session: Session, checkout: Checkout, limits: Limits) -> None:
    """Takes back kills by tests that fail without any mutant, too."""
    killers = {r["test"].partition("[")[0] for r in session.results.values() if "::" in r["test"]}
    failing = checkout.failing(sorted(killers), limits.test_s)
    for mutant, result in list(session.results.items()):
        if result["test"].partition("[")[0] in failing:
            note = f"{result['test']} fails without it"
            changed = {"outcome": str(Outcome.SURVIVED), "test": "", "note": note}
            session.add(mutant, {k: v for k, v in result.items() if k != "mutant"} | changed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if all mutants were tried, however many survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="number of mutants")
    parser.add_argument("--seed", type=int, default=1, help="decides which")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, choices=PACKAGES)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to test")
    parser.add_argument("--session", type=Path, default=ROOT / ".cache/mutation/session.jsonl")
    parser.add_argument("--test-s", type=float, default=Limits.test_s, help="limit of a test")
    parser.add_argument(
        "--quick-s", type=float, default=Limits.quick_s, help="limit of quick tests"
    )
    parser.add_argument("--service-s", type=float, default=Limits.service_s, help="of the others")
    parser.add_argument("--again", action="store_true", help="try survivors again")
    parser.add_argument("--only", nargs="+", default=(), help="PATH or PATH:LINE of mutants")
    parser.add_argument("--report", action="store_true", help="print what is known, and end")
    options = parser.parse_args(arguments)
    session = Session(options.session)
    if options.report:
        print(report(session))
        return 0
    asked = {"sample": options.sample, "seed": options.seed, "packages": options.packages}
    if session.sample and session.asked != asked:
        parser.error(f"{options.session} is of {session.asked}: remove it, or name another")
    if not session.sample:
        modules = read_modules(options.root, options.packages)
        session.begin(asked, draw(modules, options.sample, options.seed))
    limits = Limits(options.test_s, options.quick_s, options.service_s)
    checkout = Checkout(options.root.absolute(), options.session.with_suffix(".checkout"))
    _try_all(session, checkout, limits, options.again, options.only)
    _verify(session, checkout, limits)
    print(report(session))
    return 0


if __name__ == "__main__":
    sys.exit(main())
