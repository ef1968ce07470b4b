"""Which tests are asked about a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.nearest_tests import TestFinder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Returns a checkout with one package and its tests."""
    texts = {
        "retrieval/search/merge.py": "",
        "retrieval/search/executor.py": "from retrieval.search import merge\n",
        "retrieval/search/alone.py": "",
        "embedding/orders.py": "",
        "nearline/clients/__init__.py": "from nearline.clients.admin import Admin\n",
        "nearline/clients/admin.py": "",
        "tests/retrieval/search/test_merge.py": "from retrieval.search.merge import a\n",
        "tests/retrieval/search/test_near.py": "",
        "tests/retrieval/test_executor.py": (
            "from retrieval.search.executor import b\npytestmark = pytest.mark.service\n"
        ),
        "tests/nearline/test_admins.py": "from nearline.clients import Admin\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def test_the_test_of_that_name_comes_first_then_those_that_import_it(root: Path) -> None:
    tests = TestFinder(root).nearest("retrieval/search/merge.py")
    assert tests.quick == (
        "tests/retrieval/search/test_merge.py",
        "tests/retrieval/search/test_near.py",
        "tests/retrieval/test_executor.py",
    )
    assert tests.service == ("tests/retrieval/test_executor.py",)


def test_a_name_that_a_package_passes_on_leads_to_its_module(root: Path) -> None:
    tests = TestFinder(root).nearest("nearline/clients/admin.py")
    assert tests.quick == ("tests/nearline/test_admins.py",)


def test_a_module_that_no_test_reaches_has_no_nearest_tests(root: Path) -> None:
    assert TestFinder(root).nearest("embedding/orders.py").quick == ()
