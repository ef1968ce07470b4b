"""Each export into Milvus has a lease of its own."""

from __future__ import annotations

from retrieval.milvus.provider import lease_name


def test_each_export_has_a_lease_name_of_its_own() -> None:
    first = lease_name("default", "nearline_default__s", 7)
    assert first == "nl:{default}:milvus:nearline_default__s:7"
    assert first != lease_name("default", "nearline_default__s", 8)
