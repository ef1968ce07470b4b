"""Suggestions for a misspelt name in an error message."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def suggest_names(name: str, known: Collection[str]) -> str:
    """Returns the known names, quoted, with the one closest to `name` first; "none" if empty."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ", ".join(repr(other) for other in [*close, *sorted(set(known) - set(close))]) or "none"
