"""Every file format gives the same items, and every malformed row is reported."""

from __future__ import annotations

import contextlib
import csv
import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder.documents.bad_rows import BadRows
from index_builder.documents.records import SourceRow
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Item
from nearline.errors import InvalidRequest

DEFAULT = DocumentColumns()


def _read(path: Path, columns: DocumentColumns = DEFAULT) -> tuple[list[SourceRow], BadRows]:
    bad_rows = BadRows()
    return list(Corpus([path], columns).rows(bad_rows)), bad_rows


def _items(path: Path, columns: DocumentColumns = DEFAULT) -> list[Item]:
    rows, bad_rows = _read(path, columns)
    assert bad_rows.count == 0, bad_rows.sample
    return [row.item for row in rows]


def _reasons(path: Path, columns: DocumentColumns = DEFAULT) -> list[str]:
    return [str(row).removeprefix(f"{path}:") for row in _read(path, columns)[1].sample]


def test_json_lines_in_beir_layout_need_no_options(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        '\ufeff{"_id": "a", "title": "T", "text": "x", "n": 1}\n\n{"_id": 7, "text": "y"}\n'
    )
    first, second = _items(path)
    assert (first.id, first.title, first.text, first.attributes) == ("a", "T", "x", {"n": 1})
    assert (second.id, second.title, second.text) == ("7", "", "y")


@pytest.mark.parametrize(
    ("columns", "attributes"),
    [
        (DEFAULT, {"price": 3, "brand": "x", "stock": None}),
        (DocumentColumns(attributes=("brand",)), {"brand": "x"}),
        # Named as an attribute itself, it is one.
        (
            DocumentColumns(attributes=("attributes",)),
            {"attributes": {"brand": "x", "stock": None}},
        ),
    ],
)
def test_an_object_of_attributes_as_in_the_api_is_read_as_columns(
    tmp_path: Path, columns: DocumentColumns, attributes: object
) -> None:
    row = {"id": "a", "text": "y", "attributes": {"brand": "x", "stock": None}, "price": 3}
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(row))
    assert _items(path, columns)[0].attributes == attributes
    parquet = tmp_path / "items.parquet"
    pq.write_table(pa.Table.from_pylist([row]), parquet)
    if columns is DEFAULT:
        assert _items(parquet)[0].attributes == attributes


def test_a_value_beside_attributes_and_in_them_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "a", "text": "y", "attributes": {"brand": "x"}, "brand": "z"}\n')
    assert _reasons(path) == ["1: brand is a column and also in attributes; rename or remove one"]


def test_malformed_json_lines_are_named_with_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"id": "ok", "text": "x"}\n{"id": \n[1]\n{"text": "x"}\n{"id": null, "text": "x"}\n'
        b'{"id": "b\xff", "text": "x"}\n'
    )
    rows, bad_rows = _read(path)
    assert [row.item.id for row in rows] == ["ok"]
    assert bad_rows.count == 5
    assert _reasons(path) == [
        "2: not JSON: Expecting value at column 7",
        "3: it is a JSON list, not an object",
        "4: the id is missing: there is no _id or id",
        "5: the id is missing: id is null",
        "6: not UTF-8: byte 10 of the line",
    ]
    path.write_text('{"id": "cut')
    assert _reasons(path) == ["1: not JSON: Unterminated string starting at column 8"]


def test_columns_are_chosen_and_the_rest_left_out(tmp_path: Path) -> None:
    path = tmp_path / "shop.jsonl"
    path.write_text('{"sku": "s1", "name": "Lamp", "about": "Bright.", "price": 9.5, "stock": 3}\n')
    chosen = DocumentColumns(id="sku", title="name", text="about", attributes=("price",))
    (item,) = _items(path, chosen)
    assert (item.id, item.title, item.text) == ("s1", "Lamp", "Bright.")
    assert item.attributes == {"price": 9.5}


def test_csv_columns_take_the_narrowest_type_that_reads_every_cell(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "id,text,count,price,new,code,when,mixed\n"
        '1,"a, ""b""\nc",3,1.5,true,007,2024-05-01,1\n'
        "2,d,,2,false,12,2024-05-01T10:00:00+02:00,x\n"
    )
    rows, bad_rows = _read(path)
    assert bad_rows.count == 0
    assert [row.location.line for row in rows] == [2, 4]
    assert rows[0].item.id == "1"
    assert rows[0].item.text == 'a, "b"\nc'
    assert rows[0].item.attributes == {
        "count": 3,
        "price": 1.5,
        "new": True,
        "code": "007",
        "when": datetime(2024, 5, 1),
        "mixed": "1",
    }
    assert rows[1].item.attributes["count"] is None
    assert isinstance(rows[1].item.attributes["price"], float)
    assert rows[1].item.attributes["code"] == "12"


def test_csv_lists_are_found_and_a_declared_kind_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "songs.csv"
    path.write_text(
        'id,text,genres,tags,years,moods\n1,a,rock|pop,"[""new""]",1999|2001,calm | loud\n'
        "2,b,jazz,[],,calm\n"
    )
    first, second = _items(path)
    assert first.attributes == {
        "genres": ["rock", "pop"],
        "tags": ["new"],
        "years": [1999, 2001],
        "moods": "calm | loud",
    }
    assert second.attributes == {"genres": ["jazz"], "tags": [], "years": None, "moods": "calm"}
    declared = DocumentColumns(declared=("genres", "years", "moods"), lists=("years", "moods"))
    first, second = _items(path, declared)
    assert first.attributes == {
        "genres": "rock|pop",
        "tags": ["new"],
        "years": ["1999", "2001"],
        "moods": ["calm", "loud"],
    }
    assert (second.attributes["genres"], second.attributes["moods"]) == ("jazz", ["calm"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_the_text_or_title_can_be_an_attribute_too(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"t.{suffix}"
    cells = {"id": "1", "genres": "rock|pop", "code": "007", "n": "3"}
    if suffix == "csv":
        path.write_text("id,genres,code,n\n1,rock|pop,007,3\n")
    elif suffix == "jsonl":
        path.write_text(json.dumps(cells) + "\n")
    else:
        pq.write_table(pa.table({name: [cell] for name, cell in cells.items()}), path)
    both = DocumentColumns(text="genres", title="code", also_attributes=("genres", "code"))
    (item,) = _items(path, both)
    assert (item.text, item.title) == ("rock|pop", "007")
    genres, number = (["rock", "pop"], 3) if suffix == "csv" else ("rock|pop", "3")
    assert item.attributes == {"genres": genres, "code": "007", "n": number}
    with (
        pytest.raises(InvalidRequest, match="no column mood")
        if suffix != "jsonl"
        else (contextlib.nullcontext())
    ):
        _read(path, DocumentColumns(text="genres", also_attributes=("mood",)))


def test_malformed_csv_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"id,text\n1,a\n2\n3,b,c\n4,\xff\n5,e\n")
    rows, _ = _read(path)
    assert [row.item.id for row in rows] == ["1", "5"]
    assert _reasons(path) == [
        "3: 1 cells, the header has 2",
        "4: 3 cells, the header has 2",
        "5: not UTF-8",
    ]
    path.write_bytes(b"\x80\xff,a\n1,2\n3,4\n")
    assert _reasons(path) == ["1: the header is not UTF-8; is the file text?"]
    path.write_text(",".join(f"column{n}" for n in range(1_000)) + "\n")
    with pytest.raises(InvalidRequest) as caught:
        _read(path)
    assert caught.value.message.endswith("…") and len(caught.value.message) < 400


def test_parquet_keeps_types(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    table = {
        "id": [1, 2],
        "text": ["a", "b"],
        "day": [date(2024, 5, 1), None],
        "at": [datetime(2024, 5, 1, 12, tzinfo=UTC), None],
        "tags": [["x", "y"], []],
        "size": [1.5, float("nan")],
    }
    pq.write_table(pa.table(table), path)
    first, second = _items(path)
    assert first.id == "1"
    assert first.attributes["day"] == date(2024, 5, 1)
    assert first.attributes["at"] == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert first.attributes["tags"] == ["x", "y"]
    assert second.attributes["at"] is None


def test_text_and_markdown_files_are_a_document_each_in_path_order(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "b.md").write_text(
        "```\n# no heading\n```\nIntro.\n\n## Set *up* ##\nText."
    )
    (tmp_path / "a.txt").write_text("Plain.")
    (tmp_path / "c.md").write_text("Title\n=====\nBody.")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "picture.png").write_bytes(b"\x89")
    items = _items(tmp_path)
    assert [(item.id, item.title) for item in items] == [
        ("a.txt", "a"),
        ("c.md", "Title"),
        ("guide/b.md", "Set up"),
    ]
    assert items[2].text.endswith("Text.")


def test_a_text_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"first\nsecond \xe9\n")
    assert _reasons(path) == ["2: not UTF-8: byte 14 of the file"]


@pytest.mark.parametrize("suffix", ["txt", "md", "html", "pdf", "csv", "jsonl", "parquet"])
def test_an_empty_file_is_named_with_a_remedy_and_the_others_are_read(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"empty.{suffix}").touch()
    (tmp_path / "good.txt").write_text("Good.")
    rows, bad_rows = _read(tmp_path)
    assert [row.item.id for row in rows] == ["good.txt"]
    (bad,) = bad_rows.sample
    said = "the file is empty; save or export it again, or leave it out"
    assert str(bad) == f"{tmp_path}/empty.{suffix}: {said}"


def test_links_out_of_a_folder_are_malformed_rows_and_other_formats_are_named(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("Nobody may read this.")
    (folder / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "a.txt").write_text("Text.")
    (folder / "a.png").touch()
    corpus, bad_rows = Corpus([folder], DEFAULT), BadRows()
    assert [row.item.id for row in corpus.rows(bad_rows)] == ["a.txt"]
    assert [one.location.source for one in bad_rows.sample] == [f"{folder}/leak.txt"]
    assert corpus.skipped == ["a.png"]
    # A link that is named itself is what its owner means.
    assert [row.item.text for row in Corpus([folder / "leak.txt"], DEFAULT).rows(bad_rows)] == [
        "Nobody may read this."
    ]


def test_a_table_without_columns_is_left_out_where_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,body\n1,a\n")
    (tmp_path / "b.txt").write_text("Text.")
    bad_rows = BadRows()
    corpus = Corpus([tmp_path], DEFAULT, leave_out_tables=True)
    assert [row.item.id for row in corpus.rows(bad_rows)] == ["b.txt"]
    (bad,) = bad_rows.sample
    assert bad.location.source == f"{tmp_path}/a.csv" and "has no column _id or id" in bad.reason


@pytest.mark.parametrize("separator", ",;\t")
def test_a_csv_file_without_columns_can_be_a_sheet(tmp_path: Path, separator: str) -> None:
    cells = [("plant", "kind", "price"), ("Night Bell", "tomato, tall", "3.20"), ("Aster", "", "4")]
    with (tmp_path / "plants.csv").open("w", newline="") as stream:
        csv.writer(stream, delimiter=separator).writerows(cells)
    (tmp_path / "rows.csv").write_text("id,text\n7,A text.\n")
    columns = DocumentColumns(sheets=True)
    items = [row.item for row in Corpus([tmp_path], columns).rows(BadRows())]
    text = "- plant: Night Bell; kind: tomato, tall; price: 3.20\n- plant: Aster; price: 4"
    assert [(one.id, one.title, one.text) for one in items] == [
        ("plants.csv", "plants", text),
        ("7", "", "A text."),
    ]


def test_a_text_of_white_space_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.md").write_text(" \n\t\n")
    assert [row.reason for row in _read(tmp_path)[1].sample] == [
        "the file has no text, only white space or signs; save it again, or leave it out"
    ]


def test_a_matrix_gives_row_numbers_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.arange(22, dtype=np.float32).reshape(11, 2))
    items = _items(path)
    assert [items[0].id, items[10].id] == ["00", "10"]
    assert np.array_equal(np.asarray(items[10].vector), [20, 21])
    assert Corpus([path], DEFAULT).brings_vectors


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3, np.float32), r"shape \(3,\)"),
        (np.zeros((2, 2), np.int64), "type int64"),
        (np.array([{}]), "not a readable"),
    ],
)
def test_a_file_without_a_float_matrix_is_refused(
    tmp_path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], said: str
) -> None:
    path = tmp_path / "v.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(InvalidRequest, match=said):
        _read(path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_a_named_column_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        path.write_text("key,body\n1,a\n")
    else:
        pq.write_table(pa.table({"key": ["1"], "body": ["a"]}), path)
    with pytest.raises(InvalidRequest, match=r"no column _id or id .*text .*it has: key, body"):
        _read(path)
    assert _items(path, DocumentColumns(id="key", text="body"))[0].id == "1"


def test_vectors_come_from_a_column(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(
        '{"id": "a", "v": [1, 2]}\n{"id": "b", "v": ["x"]}\n{"id": "c", "v": [[1], 2]}\n'
    )
    rows, bad_rows = _read(path, DocumentColumns(vector="v"))
    assert np.array_equal(np.asarray(rows[0].item.vector), [1, 2])
    assert [row.reason for row in bad_rows.sample] == [
        "the vector in v is not a list of numbers"
    ] * 2


@pytest.mark.parametrize(
    ("name", "said"), [("missing.jsonl", "does not exist"), ("x.dwg", "has no known file type")]
)
def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "x.dwg").write_bytes(b"PK")
    with pytest.raises(InvalidRequest, match=said):
        Corpus([tmp_path / name], DEFAULT)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no readable file"):
        Corpus([tmp_path], DEFAULT)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "x"}) + "\n")
    rows = Corpus([path], DEFAULT).rows(BadRows())
    next(rows)
    path.write_text(json.dumps({"id": "a", "text": "changed"}) + "\n")
    with pytest.raises(InvalidRequest, match="changed during the build"):
        next(rows)
