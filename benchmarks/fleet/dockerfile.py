"""Defaults of an image, read from its stage of the Dockerfile."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

_INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$", re.S)


@dataclass(slots=True)
class Image:
    """Defaults of the containers of an image; `user` is empty for root."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    user: str = ""
    volumes: tuple[str, ...] = ()


def read_stage(dockerfile: str, name: str) -> Image:
    """Returns the image that a stage makes.

    Raises: KeyError: there is no stage of this name.
    """
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    current: list[tuple[str, str]] = []
    for keyword, rest in _instructions(dockerfile):
        if keyword == "FROM":
            parent, _, stage = rest.partition(" AS ")
            current = []
            stages[stage.strip()] = (parent.split()[-1], current)
        else:
            current.append((keyword, rest))
    lineage: list[list[tuple[str, str]]] = []
    while name in stages or not lineage:
        parent, instructions = stages[name]
        lineage.append(instructions)
        name = parent
    image = Image()
    for instructions in reversed(lineage):
        for keyword, rest in instructions:
            _apply(image, keyword, rest)
    return image


def _apply(image: Image, keyword: str, rest: str) -> None:
    match keyword:
        case "ENTRYPOINT":
            image.entrypoint, image.command = tuple(json.loads(rest)), ()
        case "CMD":
            image.command = tuple(json.loads(rest))
        case "ENV":
            image.environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        case "USER":
            image.user = "" if rest in ("0", "root") else rest
        case "VOLUME":
            image.volumes += tuple(rest.split())


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = (_INSTRUCTION.match(line.strip()) for line in joined.splitlines())
    return [(match[1], match[2].strip()) for match in found if match]
