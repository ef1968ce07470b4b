"""Tests that hostile texts are processed in linear, not quadratic, time."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Parsers, and texts that once took minutes because they are ambiguous and never match.
READ = {
    "a run of markers": ("escape_markers", "'(' + '[1]  ' * 40 + 'x'"),
    "a list of markers": ("escape_markers", "'[' + '1,    ' * 15 + 'x'"),
    "numbers with carets": ("escape_markers", "'[' + '^1,' * 15 + 'x'"),
    "space behind a marker": ("escape_markers", "'[1]' + ' ' * 50_000 + 'x'"),
    "a run like a fence": ("fenceless", "'<' * 5_000 + 'x'"),
    "space behind a date": ("extract_quantities", "'May 5' + ' ' * 50_000 + 'x'"),
    "space at the end of a draft": ("ended", "'a' + ' ' * 50_000 + 'x'"),
    "a citation of half a document": ("verdict", "'a ' * 500_000"),
    "a run of stops": ("sentences", "'.' * 100_000 + 'x'"),
    "a fragment after many names": ("condensed", "'how do I read ' + 'aB ' * 5_000"),
}
READERS = """
from generation.writers.prompt import _harmless
from generation.checks.citations import check_citation
from generation.checks.draft_parser import _HALF_MARKER
from generation.checks.markers import escape_markers
from generation.checks.quantities import extract_quantities
from generation.memory.query_rewriter import rewrite_query
from nearline.contract import Citation, Turn
from nearline.sentences import sentences

half = Citation(
    number=1,
    document_id="d",
    chunk=0,
    char_start=0,
    char_end=500_000,
    text_hash="0" * 64,
    snapshot_id="s",
)
verdict = lambda text: check_citation(half, text)
fenceless = lambda text: _harmless(text, "0" * 16)
ended = _HALF_MARKER.search
condensed = lambda text: rewrite_query("what about JSON?", [Turn(text, "")])
"""


@pytest.mark.parametrize(("reader", "text"), READ.values(), ids=list(READ))
def test_hostile_text_is_read_in_time(reader: str, text: str) -> None:
    # In a process of its own, because nothing else can stop a regular expression.
    code = f"{READERS}\n{reader}({text})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=15)
