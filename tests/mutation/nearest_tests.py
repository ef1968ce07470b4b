"""Finds the tests nearest to a module: by its name, by imports, by its folder."""

from __future__ import annotations

import ast
from collections import deque
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

SOURCES = (
    "nearline",
    "embedding",
    "retrieval",
    "index_builder",
    "generation",
    "gateway",
    "nearline_cli",
)
# Imports between a test and a module that it is still taken to test.
MAX_DISTANCE = 3
MAX_SERVICE_DISTANCE = 2
MAX_FILES = 16
MAX_SERVICE_FILES = 8
# Tests of other things: of a server that is not there, of whole systems, which takes minutes.
NEVER_NEAR = (
    *(
        f"tests/{name}/"
        for name in ("benchmarks", "docs", "live", "milvus", "mutation", "nearline_cli")
    ),
    # Its cluster takes a minute to start, which would be taken for a mutant that never ends.
    "tests/index_builder/execution/test_ray_executor.py",
)
# Modules that tests start as processes, so that no import leads to them.
STARTED = {
    "embedding/__main__.py": ["tests/embedding/test_main.py", "tests/embedding/test_servicer.py"],
    "generation/__main__.py": ["tests/generation/test_main.py"],
    "index_builder/__main__.py": ["tests/nearline_cli/commands/test_build.py"],
    "index_builder/ingest/__main__.py": ["tests/live/test_ingesting.py"],
    "index_builder/readers/sandbox_main.py": ["tests/index_builder/readers"],
    "retrieval/__main__.py": ["tests/retrieval/router/test_processes.py"],
    "retrieval/shard_server.py": ["tests/retrieval/router/test_processes.py"],
    "retrieval/live/graph_process.py": ["tests/retrieval/live"],
}


@dataclass(frozen=True)
class NearestTests:
    """Test files, nearest first.

    Attributes:
        quick: Files to run without their `service` tests.
        service: Files to run for their `service` tests alone.
    """

    quick: tuple[str, ...]
    service: tuple[str, ...]


class TestFinder:
    """Knows who imports what in a checkout."""

    __test__ = False

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trees: dict[str, ast.Module] = {}
        for top in (*SOURCES, "tests"):
            for path in sorted((root / top).rglob("*.py")):
                name = path.relative_to(root).as_posix()
                if not name.startswith(("nearline/v1/", "nearline/internal/")):
                    self._trees[name] = ast.parse(path.read_bytes())
        self._importers: dict[str, set[str]] = {}
        for name in self._trees:
            if not name.endswith("__init__.py"):
                for imported in self._imports(name) | self._fixtures(name):
                    self._importers.setdefault(imported, set()).add(name)

    def nearest(self, path: str) -> NearestTests:
        """Returns the tests of a module, given relative to the root."""
        folder = PurePosixPath("tests", path).parent
        named = (folder / f"test_{PurePosixPath(path).name}").as_posix()
        started = [name for entry in STARTED.get(path, ()) for name in self._files(entry)]
        distances = self._distances(path)
        close = {name for name in distances if not name.startswith(NEVER_NEAR)}
        close |= {named, *started, *self._files(folder.as_posix())}

        def order(name: str) -> tuple[bool, bool, int, bool, str]:
            is_beside = PurePosixPath(name).parent == folder
            # The folder of a module counts as one import away from it.
            steps = min(distances.get(name, MAX_DISTANCE + 1), 2 if is_beside else MAX_DISTANCE + 1)
            return name != named, name not in started, steps, not is_beside, name

        ordered = [name for name in sorted(close, key=order) if name in self._trees]
        service = [
            name
            for name in ordered
            if self._has_service_tests(name)
            and (
                name in {named, *started}
                or PurePosixPath(name).parent == folder
                or distances.get(name, MAX_DISTANCE) <= MAX_SERVICE_DISTANCE
            )
        ]
        return NearestTests(tuple(ordered[:MAX_FILES]), tuple(service[:MAX_SERVICE_FILES]))

    def _files(self, entry: str) -> list[str]:
        """Lists a file, or the test files of a folder."""
        if entry.endswith(".py"):
            return [entry]
        return [
            n for n in self._trees if _is_test(n) and PurePosixPath(n).parent.as_posix() == entry
        ]

    def _has_service_tests(self, name: str) -> bool:
        return "mark.service" in (self._root / name).read_text("utf-8")

    def _distances(self, path: str) -> dict[str, int]:
        """Returns the number of imports from each test file to a module."""
        steps = {path: 0}
        queue = deque([path])
        while queue:
            name = queue.popleft()
            if steps[name] == MAX_DISTANCE:
                continue
            for importer in self._importers.get(name, ()):
                if importer not in steps:
                    steps[importer] = steps[name] + 1
                    queue.append(importer)
        return {name: distance for name, distance in steps.items() if _is_test(name)}

    def _fixtures(self, name: str) -> set[str]:
        """Returns the `conftest.py` of a test's folder; the one of all tests leads everywhere."""
        own = (PurePosixPath(name).parent / "conftest.py").as_posix()
        return {own} if own in self._trees and own not in {name, "tests/conftest.py"} else set()

    def _imports(self, name: str) -> set[str]:
        found = set()
        for node in ast.walk(self._trees[name]):
            if isinstance(node, ast.Import):
                found |= {self._module(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {self._imported(node.module, alias.name) for alias in node.names}
        return {module for module in found if module}

    def _imported(self, module: str, name: str) -> str:
        """Returns the file that a name comes from, also where a package passes it on."""
        direct = self._module(f"{module}.{name}") or self._module(module)
        package = self._trees.get(f"{module.replace('.', '/')}/__init__.py")
        if direct or package is None:
            return direct
        for node in ast.walk(package):
            if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
                if name in {alias.asname or alias.name for alias in node.names}:
                    return self._imported(node.module, name)
        return ""

    def _module(self, dotted: str) -> str:
        name = f"{dotted.replace('.', '/')}.py"
        return name if name in self._trees else ""


def _is_test(name: str) -> bool:
    return name.startswith("tests/") and PurePosixPath(name).name.startswith("test_")
