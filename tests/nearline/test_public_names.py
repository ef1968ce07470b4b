"""Public names of the package are imported when they are used, and are those that types promise."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nearline


def promised() -> dict[str, str]:
    """Returns the module of each name that type checkers read."""
    tree = ast.parse(Path(nearline.__file__).read_text("utf-8"))
    return {
        name.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearline.")
        for name in node.names
    }


def test_each_name_is_that_which_type_checkers_read() -> None:
    found = promised()
    assert sorted(found) == nearline.__all__
    for name, module in found.items():
        assert getattr(nearline, name) is getattr(import_module(module), name)
    assert set(found) <= set(dir(nearline))


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'nearline' has no attribute 'Retriever'"):
        nearline.Retriever  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Retriever' from 'nearline'"):
        from nearline import Retriever  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize(
    ("code", "left_out"),
    [
        ("import nearline", {"grpc", "numpy", "nearline.clients", "nearline.contract"}),
        ("from nearline import NearlineError", {"grpc", "numpy", "nearline.contract"}),
        ("from gateway import health; health.check('127.0.0.1:9')", {"grpc", "numpy", "starlette"}),
        (
            "from nearline import health; health.check('127.0.0.1:9')",
            {"numpy", "prometheus_client", "nearline.contract", "nearline.access"},
        ),
    ],
    ids=["package", "error", "gateway.health", "nearline.health"],
)
def test_what_starts_often_imports_little(code: str, left_out: set[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not left_out & set(shown)
