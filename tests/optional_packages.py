"""Skips tests of packages that are not installed, without importing those that are."""

from __future__ import annotations

import importlib.util

import pytest


def needs(package: str, extra: str) -> pytest.MarkDecorator:
    """Returns a mark that skips tests where a package is missing.

    Unlike `pytest.importorskip`, it does not import it in every process that collects the tests.
    """
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"{package} is not installed: pip install 'nearline-server[{extra}]'",
    )
