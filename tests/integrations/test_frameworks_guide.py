"""The page on frameworks: each example runs against a real service."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "frameworks.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.M | re.S))
PACKAGES = {"langchain": "langchain_core", "llama-index": "llama_index", "haystack": "haystack"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(package) is None,
                reason=f"{package} is not installed: make test-integrations",
            ),
        )
        for name, package in PACKAGES.items()
    ],
)
def test_each_example_finds_its_document(
    address: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(BLOCKS[name].replace("127.0.0.1:7700", address), {})
    said = capsys.readouterr().out
    assert "Espresso is brewed under pressure." in said and "Tee" not in said


def test_the_page_has_an_example_for_each_framework() -> None:
    assert BLOCKS.keys() == PACKAGES.keys()
