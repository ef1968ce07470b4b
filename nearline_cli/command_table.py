"""The commands by name: where each is defined, and under which heading the help lists it.

Nothing is imported for it: a command is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class CommandEntry(NamedTuple):
    """A command, or a group of commands.

    panel: Heading in the help. module, name: The function, or the Typer app of a group.
    """

    panel: str
    module: str
    name: str


_PANELS = {
    "Use": {
        "search": "search:search",
        "suggest": "suggest:suggest",
        "recommend": "recommend:recommend",
        "recommend-all": "recommend_all:recommend_all",
        "ask": "ask:ask",
        "count": "count:count",
        "items": "items:app",
        "users": "users:app",
        "sessions": "sessions:app",
        "mcp": "mcp:mcp",
    },
    "Build": {
        "collections": "collections:app",
        "build": "build:build",
        "ingest": "ingest:ingest",
        "jobs": "jobs:app",
        "letters": "dead_letters:app",
        "compact": "changes:compact",
        "reembed": "reembed:reembed",
        "snapshots": "releases.snapshots:app",
        "gate": "releases.gate:app",
        "rollout": "releases.rollout:app",
        "policies": "policies:app",
        "models": "models:app",
        "changes": "changes:app",
    },
    "Run": {
        "demo": "demo:demo",
        "up": "up:up",
        "worker": "worker:app",
        "status": "status:status",
        "doctor": "doctor:doctor",
        "keys": "keys:app",
        "certs": "certs:certs",
    },
    "Measure": {
        "eval": "eval:app",
        "replay": "releases.replay:replay",
        "load": "load:load",
    },
}


def command_table() -> Mapping[str, CommandEntry]:
    """Returns the commands of this installation, in the order of the help."""
    table = {
        command: CommandEntry(panel, f"nearline_cli.commands.{module}", name)
        for panel, commands in _PANELS.items()
        for command, (module, _, name) in ((one, at.partition(":")) for one, at in commands.items())
    }
    # Benchmarks and their baselines are not installed: they are part of a source checkout.
    if (Path(__file__).parents[1] / "benchmarks" / "app.py").is_file():
        table["bench"] = CommandEntry("Measure", "benchmarks.app", "app")
    return table
