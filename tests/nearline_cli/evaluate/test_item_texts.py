"""Texts of a corpus become vectors in the order of the interactions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Lane
from nearline.errors import InvalidRequest, Overloaded
from nearline_cli.evaluate.item_texts import embed_texts, read_texts
from tests.index_builder.embedders import DIM, HashEmbedder, vector_of

COLUMNS = DocumentColumns(id="movie", title="title", text="genres", attributes=(), needs_text=False)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    file = tmp_path / "movies.csv"
    lines = ["movie,title,genres", "7,Alien,Horror|Space", "8,,", "9,Heat,", "10,Up,Air", "11,Up"]
    file.write_text("\n".join(lines), "utf-8")
    return Corpus([file], COLUMNS)


def test_title_and_text_of_wanted_items_are_read(corpus: Corpus) -> None:
    assert read_texts(corpus, ["9", "8", "7", "11"]) == {"7": "Alien Horror|Space", "9": "Heat"}


def test_a_corpus_of_other_items_is_refused(corpus: Corpus) -> None:
    with pytest.raises(InvalidRequest, match=r"'Alien'.*--id-column"):
        read_texts(corpus, ["Alien", "Heat"])


async def test_rows_are_in_the_order_of_ids_and_zero_without_a_text() -> None:
    # More than one batch of 64 texts, the limit of this embedder, and one refusal in between.
    ids = [str(number) for number in range(150)]
    texts = {one: f"text {one}" for one in ids if one != "20"}
    embedder = HashEmbedder(failures=[Overloaded("busy", retry_after_s=0.0)])
    content = await embed_texts(ids, texts, embedder, await embedder.info())
    assert content.shape == (150, DIM)
    assert content.dtype == np.float32
    for row, one in enumerate(ids):
        expected = vector_of(f"text {one}") if one in texts else np.zeros(DIM)
        assert np.array_equal(content[row], expected)
    assert embedder.lanes == {Lane.BULK}
