"""Parts of tests of running fleets: documents, the image's model, and manifests."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import sandbox
from tests.deploy.tools import require_tool
from tests.redis_server import INSTALLED

ROOT = Path(__file__).parents[2]
DOCUMENTS = 40
needs_containers = pytest.mark.skipif(
    bool(sandbox.why_not()) or not INSTALLED,
    reason=sandbox.why_not() or "the bundled Redis is not installed",
)


def write_documents(folder: Path, first: int = 0, count: int = DOCUMENTS) -> None:
    """Writes documents d0.md, d1.md, … about rivers and boats."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        text = (
            f"# River {number}\n\nThe river {number} flows north. It carries {number * 7} boats.\n"
        )
        (folder / f"d{number}.md").write_text(text, "utf-8")


def visits(visitors: int = 30) -> list[dict[str, str]]:
    """Returns interactions as JSON, of visitors who all saw d1.md, d2.md and d3.md."""
    return [
        {"item_id": f"d{number}.md", "user_id": f"visitor-{visitor}", "kind": "view"}
        for visitor in range(visitors)
        for number in (1, 2, 3)
    ]


def post(address: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Returns what a gateway answers to a request."""
    request = urllib.request.Request(
        f"http://{address}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        answered: dict[str, Any] = json.load(reply)
        return answered


async def check_learned(gateway: str, snapshot_id: str) -> None:
    """Waits until a snapshot answers, and asks it for lists that it has learned from `visits`."""
    body: dict[str, Any] = {"item_ids": ["d1.md"], "n": 2}
    async with asyncio.timeout(120):
        while True:
            path = "/v1/collections/default/recommend"
            reply = await asyncio.to_thread(post, gateway, path, body)
            if reply["info"]["snapshot_id"] == snapshot_id:
                break
            await asyncio.sleep(0.2)
    assert {one["hit"]["id"] for one in reply["recommendations"]} == {"d2.md", "d3.md"}, reply


def kustomized(folder: str) -> str:
    """Returns the manifests of a folder, or skips the test if there is no kustomize."""
    command = [
        require_tool("kustomize"),
        "build",
        "--load-restrictor",
        "LoadRestrictionsNone",
        str(ROOT / folder),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load_record(log: str) -> dict[str, Any]:
    """Returns what `benchmarks.fleet.load` printed at its end."""
    record: dict[str, Any] = json.loads(log.strip().splitlines()[-1])
    return record


def failures(record: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Returns what failed, by kind of request."""
    return {kind: one["failed"] for kind, one in record.items() if one["failed"]}
