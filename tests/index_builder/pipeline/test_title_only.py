"""Documents that have only a title: refused with the option that accepts them, or accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_corpus
from index_builder.pipeline.settings import IndexBuilderSettings
from index_builder.readers.corpus import Corpus
from nearline.errors import InvalidRequest
from tests.index_builder.embedders import HashEmbedder

REMEDY = "--allow-title-only accepts documents that have only a title"


async def built(file: Path, rows: str, **settings: object) -> BuildResult:
    file.write_text(rows)
    store = str(file.parent / "store")
    chosen = IndexBuilderSettings.load({"store": store, **settings})
    return await build_corpus(Corpus([file], chosen.columns()), chosen.options(), HashEmbedder())


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("a.csv", "id,title,text\n1,Lamp,\n", f"the text is empty; {REMEDY}"),
        ("a.csv", "id,title\n1,Lamp\n", f"text (or set --text-column; {REMEDY})"),
        ("a.jsonl", '{"id": "1", "title": "Lamp"}\n', f"there is no text; {REMEDY}"),
    ],
)
async def test_a_title_alone_is_refused_with_the_remedy(
    tmp_path: Path, name: str, rows: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await built(tmp_path / name, rows)
    assert said in caught.value.message
    assert (await built(tmp_path / name, rows, allow_title_only=True)).documents == 1


async def test_the_remedy_is_not_named_where_it_would_not_help(tmp_path: Path) -> None:
    for rows in ("id,title,text\n1,,\n", f"id,title,text\n{'x' * 5_000},Lamp,\n"):
        with pytest.raises(InvalidRequest) as caught:
            await built(tmp_path / "a.csv", rows)
        assert "malformed row" in caught.value.message and REMEDY not in caught.value.message
    with pytest.raises(InvalidRequest, match="text and title are empty"):
        await built(tmp_path / "a.csv", "id,title,text\n1,,\n", allow_title_only=True)
