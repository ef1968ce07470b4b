"""Each export into Milvus has a lease of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("pymilvus", reason="no client of Milvus: make test-milvus")

from retrieval.milvus.provider import lease_name

pytestmark = pytest.mark.milvus


def test_each_export_has_a_lease_name_of_its_own() -> None:
    first = lease_name("default", "nearline_default__s", 7)
    assert first == "nl:{default}:milvus:nearline_default__s:7"
    assert first != lease_name("default", "nearline_default__s", 8)
