"""Regular expressions that read texts of others take time in proportion to them."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time

import pytest

from tests.scale import scaled

ROOMS = (
    "index_builder.readers",
    "index_builder.documents",
    "nearline.sentences",
    "nearline.items.chunking",
    "nearline.filter_text",
    "gateway",
    "generation",
    "retrieval.index.lexical",
)
LENGTH = scaled(20_000, nightly=100_000)
LIMIT_S = LENGTH / 100_000
UNITS = (
    *("a", "A", "1", " ", "\t", "\n", "_", "-", "#", "`", "=", "[", "(", "<", '"', "'", "/", "&"),
    *(".", "!.", ". ", "1,", "1.", "1 ", "a ", "a.", "\n ", "# ", "- ", "[1]", "](", "<a ", "a@"),
    *("http://", "&#1", "。", "†", "【", "```\n", "2020-01-", "\u200b", "(a)", "and ", "a-", "\r"),
)
ENDS = ("", "b", "\n!")
# A few units of text long, whatever they are given: their repetitions are bounded by hundreds, so
# that their time is linear, but a hundred thousand openings of brackets take them seconds.
BOUNDED = {"generation.checks.draft_parser._GOING_ON"}
# Matched at one position, not searched for.
MATCHED = {
    "index_builder.readers.asciidoc._DIRECTIVE",
    "index_builder.readers.asciidoc._ITEM",
    "index_builder.readers.asciidoc._STYLE",
    "index_builder.readers.asciidoc._TERM",
    "index_builder.readers.pdf._CONTENTS",
    "index_builder.readers.pdf._GENERATED_TITLE",
    "index_builder.readers.plain_text._CONTENTS_LINE",
    "index_builder.readers.plain_text._ITEM",
    "index_builder.readers.plain_text._LETTER_DOT",
    "index_builder.readers.restructured_text._REFERENCE",
    # Of at most 120 characters.
    "index_builder.readers.html_furniture._NOTICE",
    "generation.memory.query_rewriter._DOING",
    "nearline.filter_text._DOUBLE",
    "nearline.filter_text._TOKEN",
}


def _modules(room: str) -> list[str]:
    module = importlib.import_module(room)
    if not hasattr(module, "__path__"):
        return [room]
    names = [one.name for one in pkgutil.walk_packages(module.__path__, f"{room}.")]
    return [room, *(name for name in names if not name.endswith("__main__"))]


def _patterns() -> dict[str, re.Pattern[str] | re.Pattern[bytes]]:
    found: dict[str, re.Pattern[str] | re.Pattern[bytes]] = {}
    for room in ROOMS:
        for name in _modules(room):
            if name.endswith("sandbox_main"):
                continue
            for key, value in vars(importlib.import_module(name)).items():
                if isinstance(value, re.Pattern):
                    found.setdefault(f"{name}.{key}", value)
    return found


PATTERNS = _patterns()


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_pattern_takes_less_than_a_second_for_each_100_000_hostile_characters(name: str) -> None:
    pattern = PATTERNS[name]
    length = LENGTH // 20 if name in BOUNDED else LENGTH
    for unit in UNITS:
        for end in ENDS:
            text = (unit * (length // len(unit) + 1))[:length] + end
            given = text.encode() if isinstance(pattern.pattern, bytes) else text
            start = time.process_time()
            if name in MATCHED:
                pattern.fullmatch(given)  # type: ignore[arg-type]
            else:
                for _ in pattern.finditer(given):  # type: ignore[arg-type]
                    pass
            taken_s = time.process_time() - start
            assert taken_s < LIMIT_S, (unit, end, taken_s)
