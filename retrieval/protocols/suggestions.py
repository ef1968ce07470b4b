"""Names for an error: what there is, the one most like what was asked for first."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def suggest_names(name: str, known: Collection[str]) -> str:
    """Returns the known names, quoted, the one most like `name` first; "none" where there is
    none."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return ", ".join(repr(other) for other in [*close, *sorted(set(known) - set(close))]) or "none"
