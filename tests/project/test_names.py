"""Names are nouns of the field, each for one thing; folders are small enough to read."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from pathlib import Path

from tests.project.test_house_rules import PACKAGES, ROOT, _written

MAX_MODULES = 30
# Words of the field that end like a verb: each is what people search for.
FIELD_WORDS = {
    "blocking": "clients that block the calling thread",
    "chunking": "cutting texts into chunks",
    "embedding": "texts to vectors",
    "filtering": "filters and their plan",
    "listing": "every item in id order",
    "monitoring": "recall, measured all the time",
    "ranking": "the order of candidates",
    "retraining": "training again on what a service recorded",
    "routing": "which model answers",
    "scaling": "cost by size",
    "serving": "the life of a server process",
    "training": "fitting models",
}
# The same concept on both sides of the wire, or for several frameworks.
SAME_CONCEPT = {
    ("nearline", "Unsupported"),
    ("nearline", "NearlineRetriever"),
    ("nearline", "NearlineVectorStore"),
}


def _modules() -> list[Path]:
    paths = [path.relative_to(ROOT) for path in _written()]
    return [path for path in paths if path.parts[0] in PACKAGES and path.name != "__init__.py"]


def test_modules_are_named_by_nouns() -> None:
    verbs = [str(path) for path in _modules() if path.stem.endswith("ing")]
    assert [name for name in verbs if Path(name).stem not in FIELD_WORDS] == []


def test_a_class_name_stands_for_one_thing_in_a_package() -> None:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _modules():
        for node in ast.parse((ROOT / path).read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[path.parts[0], node.name].append(str(path))
    twice = {key: paths for key, paths in found.items() if len(paths) > 1}
    assert {key: paths for key, paths in twice.items() if key not in SAME_CONCEPT} == {}


def test_no_folder_has_more_modules_than_a_reader_can_hold() -> None:
    folders = Counter(str(path.parent) for path in _modules())
    assert {name: count for name, count in folders.items() if count > MAX_MODULES} == {}
