"""Tests of the parts of `nearline bench embed` that need no service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands import embed
from benchmarks.workloads import text_samples
from nearline.errors import InvalidRequest


def test_each_line_is_a_text_and_empty_lines_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(["one", "", "  ", *(f"text {n}" for n in range(40))]), "utf-8")
    texts = text_samples.sample_texts(file, 100)
    assert len(texts) == 41 and "one" in texts
    assert texts == text_samples.sample_texts(file, 100) != sorted(texts)


def test_jsonl_texts_come_from_the_field_text(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(f'{{"id": {n}, "text": "t{n}"}}\n' for n in range(32)), "utf-8")
    assert set(text_samples.sample_texts(file, 100)) == {f"t{n}" for n in range(32)}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"body": "x"}\n', 'field "text"'),
        ("a.jsonl", b"{not json\n", "cannot be read"),
        ("a.txt", b"\xff\xfe\n", "cannot be read"),
        ("a.txt", b"one\ntwo\n", "2 texts; at least 32"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_clear_error(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest, match=words):
        text_samples.sample_texts(tmp_path / name, 100)


def test_cosines_are_computed_per_row() -> None:
    a = np.array([[1, 0], [3, 4]], np.float32)
    b = np.array([[2, 0], [4, 3]], np.float32)
    np.testing.assert_allclose(embed._cosines(a, b), [1.0, 0.96])
