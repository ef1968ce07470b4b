"""The error of an integration whose framework is not installed."""

from __future__ import annotations


def missing_extra(extra: str, error: ImportError) -> ImportError:
    """Returns the error of a module whose framework cannot be imported; names the extra."""
    return ImportError(f"{error}; run: pip install 'nearline[{extra}]'", name=error.name)
