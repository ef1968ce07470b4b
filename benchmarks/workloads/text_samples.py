"""Texts of benchmarks."""

from __future__ import annotations

import json
import random
from pathlib import Path

from nearline.errors import InvalidRequest

# Batch size of plain encode.
_MIN_TEXTS = 32


def sample_texts(file: Path | None, count: int) -> list[str]:
    """Returns random non-empty texts of a file, or docstrings of this Python; the same each time.

    Args:
        file: One text per line, or .jsonl with "text". If None, the docstrings.
        count: Maximum number of texts.
    Raises:
        InvalidRequest: The file cannot be read, or has too few texts.
    """
    texts = _docstrings() if file is None else _read(file)
    texts = [text for text in texts if text.strip()]
    if len(texts) < count and file is not None and len(texts) < _MIN_TEXTS:
        raise InvalidRequest(
            f"{file} has {len(texts)} texts; at least {_MIN_TEXTS} are needed", field="texts"
        )
    random.Random(0).shuffle(texts)
    return texts[:count]


def _docstrings() -> list[str]:
    from index_builder.documents.python_docs import entries

    return [entry.text for entry in entries()]


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8").splitlines()
        return [json.loads(x)["text"] if file.suffix == ".jsonl" else x for x in lines if x]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"{file} cannot be read ({type(error).__name__}: {error}); give UTF-8 text, one text "
            'per line, or .jsonl with a field "text"',
            field="texts",
        ) from error
