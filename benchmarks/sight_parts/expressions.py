"""The expressions of alerts, recording rules and dashboards, and how many series they return."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
# Comparisons outside of quoted label values; one inside braces has a label name before it.
_COMPARISON = re.compile(r'"[^"]*"|\{[^}]*\}|(?P<sign>==|!=|>=|<=|>|<)(?!\s*bool)')
# A window of the past in steps: the check runs for minutes, and a step would hardly fall into it.
_STEPS = re.compile(r"\[[0-9a-z]+:[0-9a-z]+\]")
_UNLESS = re.compile(r"\)\s+unless\s+\(")
_TIMEOUT_S = 20.0
# By a metric of the expression: why there is nothing to see on this machine.
NOT_HERE = {
    "nearline_retrieval_gpu_up": "needs shards on a GPU",
    "nearline_retrieval_gpu_fallbacks_total": "needs shards on a GPU that fails",
}


class Expression(NamedTuple):
    """An expression that somebody looks at. place: Where it is; query: What Prometheus is asked."""

    place: str
    query: str

    @property
    def not_here(self) -> str:
        """Why it returns nothing on this machine; empty if it should."""
        return next((why for name, why in NOT_HERE.items() if name in self.query), "")


def expressions() -> Iterator[Expression]:
    """Yields the expressions of all rules and panels.

    Those of alerts are yielded without their thresholds: each comparison tells 0 from 1 instead of
    keeping what exceeds it, so that the expression returns data also while all is well. The two
    sides of "unless" are yielded one by one.
    """
    for file in ("rules.yaml", "alerts.yaml"):
        for group in yaml.safe_load((PROMETHEUS / file).read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                if "alert" in rule:
                    for query in without_thresholds(rule["expr"]):
                        yield Expression(name, query)
                else:
                    yield Expression(name, rule["expr"])
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(f"{path.stem}: {panel['title']}", target["expr"])


def without_thresholds(query: str) -> list[str]:
    """Returns the sides of a query, with comparisons that return 0 or 1 and leave no series out."""
    told = _COMPARISON.sub(lambda m: f"{m['sign']} bool" if m["sign"] else m[0], query)
    return _UNLESS.sub(")\0(", _STEPS.sub("[10m:15s]", told)).split("\0")


class PrometheusClient:
    """Asks a Prometheus.

    Args:
        address: host:port.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    async def series(self, query: str, start_s: float, end_s: float, step_s: float = 5.0) -> int:
        """Returns the number of series that a query returns at any step of a time range.

        start_s, end_s: Seconds since 1970.
        Raises: OSError: Prometheus does not answer, or refuses the query.
        """
        asked = {"query": query, "start": start_s, "end": end_s, "step": step_s}
        result = await self._ask("query_range", {key: str(value) for key, value in asked.items()})
        assert isinstance(result, list)
        return len(result)

    async def has_data(self, query: str) -> bool:
        """Returns whether a query returns anything now. Raises: OSError: as `series`."""
        return bool(await self._ask("query", {"query": query}))

    async def _ask(self, method: str, asked: dict[str, str]) -> object:
        url = f"http://{self._address}/api/v1/{method}?{urllib.parse.urlencode(asked)}"

        def read() -> bytes:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
                data: bytes = reply.read()
                return data

        return json.loads(await asyncio.to_thread(read))["data"]["result"]
