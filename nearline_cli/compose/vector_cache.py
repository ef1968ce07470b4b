"""Keeps the vectors of a folder's texts, so that a build embeds only texts that are new."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from nearline.contract import Embedder, EmbedderInfo, Embeddings, Lane, TextRole

_SCHEMA = """CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, vector BLOB, tokens INTEGER, truncated INTEGER, build INTEGER
) WITHOUT ROWID"""
_FIND = "SELECT key, vector, tokens, truncated FROM vectors WHERE key = ?"
_WRITE = "REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)"


class VectorCache:
    """An `Embedder` that asks another one for the vectors that its file lacks.

    Args:
        embedder: The other one.
        database: The file.
    """

    def __init__(self, embedder: Embedder, database: sqlite3.Connection) -> None:
        self._embedder = embedder
        self._database = database
        database.execute(_SCHEMA)
        (last,) = database.execute("SELECT MAX(build) FROM vectors").fetchone()
        self._build = (last or 0) + 1

    @classmethod
    @contextlib.contextmanager
    def open(cls, embedder: Embedder, path: Path) -> Iterator[Self]:
        """Opens the file; a damaged one is replaced."""
        with contextlib.ExitStack() as stack:
            try:
                database = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
                # It can be computed again: the disk need not be waited for.
                database.execute("PRAGMA synchronous = OFF")
                cache = cls(embedder, database)
            except sqlite3.Error:
                with contextlib.suppress(OSError):
                    path.unlink()
                memory = stack.enter_context(contextlib.closing(sqlite3.connect(":memory:")))
                cache = cls(embedder, memory)
            yield cache

    async def info(self) -> EmbedderInfo:
        """Returns the card of the embedder."""
        return await self._embedder.info()

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Embeds texts; see `Embedder`."""
        what = f"{expected_fingerprint} {dimensions} {role.value}\n"
        keys = [hashlib.sha256((what + text).encode()).digest() for text in texts]
        rows = {row[0]: row[1:] for key in keys for row in self._database.execute(_FIND, (key,))}
        missing = [place for place, key in enumerate(keys) if key not in rows]
        if missing:
            new = await self._embedder.embed(
                [texts[place] for place in missing],
                role,
                dimensions=dimensions,
                expected_fingerprint=expected_fingerprint,
                lane=lane,
                timeout_s=timeout_s,
            )
            numbers = zip(new.vectors, new.tokens.tolist(), new.truncated.tolist(), strict=True)
            for place, (vector, tokens, truncated) in zip(missing, numbers, strict=True):
                rows[keys[place]] = (vector.astype(np.float32).tobytes(), tokens, truncated)
        # A full disk costs the next build some time, and this one nothing.
        with contextlib.suppress(sqlite3.Error), self._database:
            written = [(key, *row, self._build) for key, row in rows.items()]
            self._database.executemany(_WRITE, written)
        vectors, tokens_of, cut = zip(*(rows[key] for key in keys), strict=True)
        return Embeddings(
            vectors=np.stack([np.frombuffer(vector, np.float32) for vector in vectors]),
            fingerprint=new.fingerprint if missing else expected_fingerprint,
            tokens=np.array(tokens_of, np.int64),
            truncated=np.array(cut, np.bool_),
        )

    def forget_unused(self) -> None:
        """Removes the vectors that no text had since the file was opened."""
        with contextlib.suppress(sqlite3.Error), self._database:
            self._database.execute("DELETE FROM vectors WHERE build < ?", (self._build,))
