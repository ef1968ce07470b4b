"""Attributes as columns: kinds are inferred or declared, mixed ones refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index_builder.documents.attribute_columns import MAX_FIELDS, infer_fields
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_corpus, build_snapshot
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Attributes, AttributeValue, Item
from nearline.errors import InvalidRequest
from nearline.items.attributes import clean, encode
from nearline.store.snapshot import Store, shard_of
from nearline.v1 import snapshot_pb2
from tests.index_builder.embedders import HashEmbedder


def fields_of(rows: list[Attributes], **declared: str) -> dict[str, tuple[str, bool]]:
    texts = [(encode(row), f"f.jsonl:{line}") for line, row in enumerate(rows, start=1)]
    return {
        field.name: (
            snapshot_pb2.AttributeField.Kind.Name(field.kind).removeprefix("KIND_").lower(),
            field.is_list,
        )
        for field in infer_fields(texts, declared)
    }


def test_kinds_are_inferred_from_all_rows() -> None:
    rows: list[Attributes] = [
        {"n": 1, "tags": "a", "none": []},
        {"n": 2.5, "tags": ["b"], "when": datetime(2020, 1, 1, tzinfo=UTC)},
        {"ok": True, "i": 3},
    ]
    assert fields_of(rows, later="time") == {
        "i": ("int", False),
        "later": ("time", False),
        "n": ("double", False),
        "none": ("string", True),
        "ok": ("bool", False),
        "tags": ("string", True),
        "when": ("time", False),
    }


def test_a_declared_list_is_one_although_no_document_has_one_yet() -> None:
    rows: list[Attributes] = [{"tags": "a"}, {"years": [1999]}]
    assert fields_of(rows, tags="string[]", years="int[]", later="time[]") == {
        "later": ("time", True),
        "tags": ("string", True),
        "years": ("int", True),
    }
    given = {"years": ["1999", 2001], "tags": 7}
    assert clean(given, {"years": "int[]", "tags": "string[]"}) == {
        "years": [1999, 2001],
        "tags": "7",
    }
    BuildOptions(store="s", attributes={"tags": "string[]"}).check()
    with pytest.raises(InvalidRequest, match=r"'string\[\]\[\]'.*string\[\] for lists"):
        BuildOptions(store="s", attributes={"tags": "string[][]"}).check()


def test_an_attribute_of_several_kinds_is_refused_with_counts_locations_and_a_remedy() -> None:
    rows: list[Attributes] = [{"y": 1}, {"y": "x"}, {"y": 2}]
    with pytest.raises(InvalidRequest) as caught:
        fields_of(rows)
    assert (
        "'y' is a whole number in 2 documents (first in f.jsonl:1) and text in 1 document (first "
        "in f.jsonl:2); declare it: --attribute y:string keeps every value as text, --attribute "
        "y:int counts values other than a whole number as malformed"
    ) in caught.value.message


def test_the_number_of_attributes_is_limited() -> None:
    rows: list[Attributes] = [{f"a{n}": 1} for n in range(MAX_FIELDS + 1)]
    assert len(fields_of(rows[:-1])) == MAX_FIELDS
    with pytest.raises(InvalidRequest, match=r"more than 1,024 .*f.jsonl:1025 adds 'a1024'"):
        fields_of(rows)


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("string", 7, "7"),
        ("string", True, "true"),
        ("string", "", ""),
        ("int", "007", 7),
        ("int", 3.0, 3),
        ("int", "", None),
        ("int", [1, "2", ""], [1, 2]),
        ("double", 1, 1.0),
        ("double", "1e3", 1000.0),
        ("bool", "False", False),
        ("time", "2020-01-02", datetime(2020, 1, 2, tzinfo=UTC)),
        ("time", "2020-01-02T03:04:05+01:00", datetime(2020, 1, 2, 2, 4, 5, tzinfo=UTC)),
    ],
)
def test_a_declared_attribute_is_read_as_its_kind(
    kind: str, given: object, kept: AttributeValue
) -> None:
    cleaned = clean({"a": given}, {"a": kind}).get("a")
    assert cleaned == kept and type(cleaned) is type(kept)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("int", "x"),
        ("int", 2.5),
        ("int", True),
        ("double", "many"),
        ("double", "inf"),
        ("bool", 1),
        ("time", 3),
        ("time", "soon"),
    ],
)
def test_a_value_of_another_than_the_declared_kind_is_refused(kind: str, given: object) -> None:
    with pytest.raises(InvalidRequest, match="attribute 'a' is"):
        clean({"a": given}, {"a": kind})


def columns_of(tmp_path: Path, result: BuildResult, shard: int = 0) -> pa.Table:
    path = result.folder / "shards" / f"{shard:03d}" / "attributes.arrow"
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


async def test_a_snapshot_has_its_columns_in_the_order_of_its_items(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    items = [
        Item(
            id=f"i{n}",
            attributes={"n": n} | ({"tags": ["x", "y"][: n % 3]} if n % 2 else {}),
            vector=rng.normal(size=4).astype(np.float32),
        )
        for n in range(50)
    ]
    result = await build_snapshot(items, BuildOptions(store=str(tmp_path), shards=3))
    manifest = Store.open(str(tmp_path)).manifest("default", result.snapshot_id)
    assert [(f.name, f.kind, f.is_list) for f in manifest.attributes] == [
        ("n", snapshot_pb2.AttributeField.KIND_INT, False),
        ("tags", snapshot_pb2.AttributeField.KIND_STRING, True),
    ]
    for shard in range(3):
        mine = sorted((i for i in items if shard_of(i.id, 3) == shard), key=lambda i: i.id)
        table = columns_of(tmp_path, result, shard)
        for name in ("n", "tags"):
            assert table.column(name).to_pylist() == [i.attributes.get(name) for i in mine]


async def test_declared_cells_of_csv_keep_their_zeros_and_bad_ones_are_named(
    tmp_path: Path,
) -> None:
    corpus = tmp_path / "c.csv"
    corpus.write_text("id,text,code,year\na,one,7,1999\nb,two,08,\nc,three,9,unknown\n")
    declared = {"code": "string", "year": "int"}
    found = Corpus([corpus], DocumentColumns(declared=tuple(declared)))
    options = BuildOptions(store=str(tmp_path / "s"), attributes=declared, max_bad_rows=1)
    result = await build_corpus(found, options, HashEmbedder())
    assert columns_of(tmp_path, result).to_pydict() == {"code": ["7", "08"], "year": [1999, None]}
    assert "c.csv:4: attribute 'year' is 'unknown'" in result.bad_row_sample[0]


async def test_mixed_kinds_fail_the_build_before_embedding(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    rows = [{"id": "a", "text": "x", "y": 1}, {"id": "b", "text": "y", "y": "z"}]
    corpus.write_text("\n".join(json.dumps(row) for row in rows))
    embedder = HashEmbedder()
    with pytest.raises(InvalidRequest, match="'y' is a whole number in 1"):
        await build_corpus(
            Corpus([corpus], DocumentColumns()), BuildOptions(store=str(tmp_path / "s")), embedder
        )
    assert not list(tmp_path.glob("s/*/snapshots/*"))


def test_an_unknown_declared_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'year' is declared of kind 'integer'"):
        BuildOptions(store="s", attributes={"year": "integer"}).check()
