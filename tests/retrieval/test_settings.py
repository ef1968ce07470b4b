"""Settings of routers and shard servers, and the topology of shards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nearline.errors import SettingsError
from retrieval.settings import RouterSettings, ShardSettings
from retrieval.shards.topology import check_address, parse_topology


def test_a_router_over_shard_servers_needs_no_index_engine() -> None:
    code = (
        "import sys, retrieval.__main__; "
        "sys.exit(', '.join({'faiss', 'pyarrow', 'torch'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_topology_is_read_in_any_order() -> None:
    text = " 1=b.example:7002 ; 0=127.0.0.1:7001, [::1]:7001;2=dns:///shard:80;"
    assert parse_topology(text) == {
        0: ("127.0.0.1:7001", "[::1]:7001"),
        1: ("b.example:7002",),
        2: ("dns:///shard:80",),
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" ; ", "--shards is empty"),
        ("0", "not of the form"),
        ("x=a:1", "not of the form"),
        ("-1=a:1", "not of the form"),
        ("64=a:1", r"not in 0\.\.63"),
        ("0=a:1;0=b:1", "shard 0 appears twice"),
        ("0=a:1;2=b:1", "names shard 2 but not 1"),
        ("1=a:1", "names shard 1 but not 0"),
        ("0=", "'' is not an address"),
        ("0=a", "'a' is not an address"),
        ("0=a:0", "port 1..65535"),
        ("0=a:65536", "port 1..65535"),
        ("0=a:1,", "'' is not an address"),
        ("0=a b:1", "'a b:1' is not an address"),
        ("0=a:1=b:1", "is not an address"),
    ],
)
def test_a_topology_that_makes_no_sense_is_refused(text: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        parse_topology(text)


def test_an_address_is_named_with_its_setting() -> None:
    assert check_address("localhost:1", "--embedding") == "localhost:1"
    with pytest.raises(SettingsError, match="--embedding: 'localhost' is not an address"):
        check_address("localhost", "--embedding")


def test_settings_come_from_arguments_and_environment() -> None:
    environ = {"NEARLINE_RETRIEVAL_STORE": "/srv", "NEARLINE_RETRIEVAL_THREADS": "3"}
    router = RouterSettings.load({"collections": "a, b,"}, environ)
    assert (router.store, router.thread_count()) == ("/srv", 3)
    assert router.collection_names() == ["a", "b"]
    assert RouterSettings.load().thread_count() >= 1
    with pytest.raises(SettingsError, match=r"retrieval\.threads"):
        RouterSettings.load({"threads": "-1"})


@pytest.mark.parametrize(("text", "wanted"), [("", None), ("3", {3}), ("0, 2", {0, 2})])
def test_shard_numbers_are_read(text: str, wanted: set[int] | None) -> None:
    assert ShardSettings.load({"shard": text}).numbers() == wanted


@pytest.mark.parametrize("text", ["a", "0,,1", "64", "-1", "0;1"])
def test_invalid_shard_numbers_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="not a list of shard numbers"):
        ShardSettings.load({"shard": text}).numbers()


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({"backend": "milvus"}, "add --milvus-uri"),
        ({"milvus_uri": "http://a:1"}, "--milvus-uri does not apply to backend faiss"),
        ({"milvus_token": "x"}, "--milvus-token does not apply to backend faiss"),
        (
            {"backend": "milvus", "milvus_uri": "http://a:1", "shards": "0=a:1"},
            "omit --shards",
        ),
    ],
)
def test_milvus_settings_require_the_milvus_backend(chosen: dict[str, object], wanted: str) -> None:
    with pytest.raises(SettingsError, match=wanted):
        RouterSettings.load(chosen).check()


def test_popular_queries_need_recorded_texts() -> None:
    for chosen in ({}, {"record_queries": "texts", "record_share": 0}):
        with pytest.raises(SettingsError, match="add --record-queries texts"):
            RouterSettings.load({"popular_queries": 5, **chosen}).check()
    RouterSettings.load({"popular_queries": 5, "record_queries": "texts"}).check()


def test_the_milvus_backend_needs_only_its_address() -> None:
    chosen = {"backend": "milvus", "milvus_uri": "http://a:1", "milvus_token": "secret"}
    settings = RouterSettings.load(chosen)
    settings.check()
    assert "secret" not in repr(settings)
    RouterSettings.load({}).check()
