"""Draws mutants at random: the same ones for the same seed, every area of the code in its share."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutation.mutants import Mutant, find_mutants, mutated

# The parts of the packages that carry requests, keep what was written, and decide what goes live.
_REQUEST_FOLDERS = (
    "behaviour",
    "cache",
    "embedders",
    "index",
    "live",
    "protocols",
    "recommend",
    "redis_client",
    "router",
    "search",
    "shards",
    "snapshots",
    "writes",
)
AREAS: Mapping[str, tuple[str, ...]] = {
    "nearline": ("nearline/",),
    "embedding": ("embedding/",),
    "retrieval: requests": tuple(f"retrieval/{name}/" for name in _REQUEST_FOLDERS),
    "retrieval: change log": ("retrieval/changelog/",),
    "retrieval: users": ("retrieval/users/",),
    "retrieval: rollout": ("retrieval/rollout/",),
    "index_builder: gate": ("index_builder/releases/",),
    "index_builder: ingest": ("index_builder/ingest/",),
    "generation": ("generation/",),
    "gateway": ("gateway/",),
}
# Generated code; and modules that hold metrics.
_LEFT_OUT = ("nearline/v1/", "nearline/internal/")
_LEFT_OUT_ENDINGS = ("__init__.py", "metrics.py")
# Of a small area, this many at least.
MIN_PER_AREA = 15


def area_of(path: str) -> str | None:
    """Returns the area that a module belongs to; None if it is in none."""
    if path.startswith(_LEFT_OUT) or path.endswith(_LEFT_OUT_ENDINGS):
        return None
    return next((area for area, folders in AREAS.items() if path.startswith(folders)), None)


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Divides a sample among areas by their sizes; each gets `MIN_PER_AREA` if it has them."""
    total = sum(sizes.values())
    floor = min(MIN_PER_AREA, count // max(1, len(sizes)))
    given = {area: min(size, floor) for area, size in sizes.items()}
    while sum(given.values()) < min(count, total):
        open_areas = [area for area in sizes if given[area] < sizes[area]]
        # Whoever is furthest below its share.
        poorest = max(open_areas, key=lambda area: sizes[area] * count / total - given[area])
        given[poorest] += 1
    return given


def read_modules(root: Path, packages: Sequence[str]) -> dict[str, str]:
    """Returns the text of every module of some packages that belongs to an area."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *packages],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    names = sorted(name for name in listed.stdout.split("\0") if name.endswith(".py"))
    return {n: (root / n).read_text("utf-8") for n in names if area_of(n) and (root / n).is_file()}


def draw(modules: Mapping[str, str], count: int, seed: int) -> list[Mutant]:
    """Returns `count` mutants, in random order; a place has one of each kind at most.

    Args:
        modules: Text by path.
        count: How many; fewer if there are not so many.
        seed: Decides the choice, together with the texts.
    """
    rng = random.Random(seed)
    places: dict[str, dict[tuple[str, int, int, str], list[Mutant]]] = {}
    for path, source in modules.items():
        in_area = places.setdefault(area_of(path) or "", {})
        for mutant in find_mutants(path, source):
            key = (path, mutant.line, mutant.column, mutant.family)
            in_area.setdefault(key, []).append(mutant)
    wanted = shares({area: len(found) for area, found in places.items()}, count)
    drawn = []
    for area, found in places.items():
        order = list(found.values())
        rng.shuffle(order)
        taken = 0
        for choices in order:
            if taken == wanted[area]:
                break
            mutant = rng.choice(choices)
            if mutated(modules[mutant.path], mutant) is not None:
                drawn.append(mutant)
                taken += 1
    rng.shuffle(drawn)
    return drawn
