"""Where a framework is missing, the error names the extra that brings it."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_the_error_names_the_extra(
    module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if neither the framework nor its integration had ever been imported.
    for name in list(sys.modules):
        if name.startswith((f"{package}.", f"nearline.integrations.{module}")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'nearline\[{extra}\]'"):
        importlib.import_module(f"nearline.integrations.{module}")
