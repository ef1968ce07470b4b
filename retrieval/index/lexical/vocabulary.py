"""The vocabulary of a snapshot: word numbers, document frequencies and text analysis.

One Arrow file per snapshot, <snapshot>/lexical/vocabulary.arrow, with one record per word in the
order of UTF-8 bytes. Columns: word large_string; chunks uint32, the number of chunks with the word.
Schema metadata: analysis (version), language, stop_words (a JSON list), stemmer (version), stems (a
JSON object of sampled words and their stems).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.index.lexical import text_analysis
from retrieval.index.lexical.text_analysis import Analyser

FOLDER = "lexical"
FILE = "vocabulary.arrow"
SCHEMA = pa.schema([("word", pa.large_string()), ("chunks", pa.uint32())])
# All shards of a process search for the same text in turn.
_CACHED_TEXTS = 1_024
# A few words make up most queries.
_CACHED_WORDS = 65_536


class Vocabulary:
    """The memory-mapped words of a snapshot, shared by all shards and threads.

    Args:
        table: See the module; one record batch.
        analyser: Turns texts into words.
    """

    def __init__(self, table: pa.Table, analyser: Analyser) -> None:
        words = table.column("word").combine_chunks()
        _, offsets, data = words.buffers()
        self._offsets = (
            np.frombuffer(offsets, np.int64)[: len(words) + 1]
            if len(words)
            else np.zeros(1, np.int64)
        )
        self._data = memoryview(data if data is not None else b"")
        self._analyser = analyser
        self.chunks: NDArray[np.uint32] = table.column("chunks").to_numpy()
        self._number = lru_cache(_CACHED_WORDS)(self._find)
        self._numbers = lru_cache(_CACHED_TEXTS)(self._look_up)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def analyser(self) -> Analyser:
        """Turns texts into words."""
        return self._analyser

    @property
    def language(self) -> str:
        """Language of the stemmer, or "none"."""
        return self._analyser.language

    @classmethod
    def load(cls, snapshot: Path) -> Vocabulary:
        """Maps the vocabulary of a snapshot.

        Args:
            snapshot: Folder of the snapshot.
        Raises: SnapshotCorrupt: not a valid vocabulary file. SnapshotMismatch: the snapshot was
            built with another version of the text analysis, or with different stems.
        """
        path = snapshot / FOLDER / FILE
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
            version, language = int(metadata["analysis"]), metadata["language"]
            stop_words: Sequence[str] = json.loads(metadata["stop_words"])
            stemmer, stems = metadata["stemmer"], json.loads(metadata["stems"])
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise SnapshotCorrupt(
                f"{path} is not a readable vocabulary ({error}); rebuild the snapshot"
            ) from error
        if version != text_analysis.VERSION or language not in text_analysis.LANGUAGES:
            raise SnapshotMismatch(
                f"{path} was built with text analysis {version} for language {language!r}; this "
                f"nearline has analysis {text_analysis.VERSION} and the languages "
                f"{', '.join(text_analysis.LANGUAGES)}; rebuild the snapshot"
            )
        analyser = Analyser(language, stop_words)
        for (word, stem), own_stem in zip(stems.items(), analyser.stems([*stems]), strict=True):
            if stem != own_stem:
                raise SnapshotMismatch(
                    f"PyStemmer {text_analysis.STEMMER_VERSION} stems {word!r} as {own_stem!r}; "
                    f"in {path} PyStemmer {stemmer} stemmed it as {stem!r}; install that version "
                    "or rebuild the snapshot"
                )
        return cls(table, analyser)

    def numbers(self, text: str) -> tuple[int, ...]:
        """Returns the numbers of the known words of a text, in order, including repetitions.

        Finding a word that is not cached takes about 10 microseconds (a binary search).
        """
        return self._numbers(text)

    def words(self, text: str) -> list[str]:
        """Returns all words of a text, known or not, in order, including repetitions."""
        return self._analyser.words(text)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the distinct words of a text, in order, and the number of chunks with each."""
        words = dict.fromkeys(self._analyser.words(text))
        numbers = [(word, self._number(word)) for word in words]
        return [(word, int(self.chunks[n]) if n >= 0 else 0) for word, n in numbers]

    def number(self, word: str) -> int:
        """Returns the number of a word as returned by `words`, 0..n-1; -1 if no chunk has it."""
        return self._number(word)

    def _look_up(self, text: str) -> tuple[int, ...]:
        numbers = map(self._number, self._analyser.words(text))
        return tuple(number for number in numbers if number >= 0)

    def _find(self, word: str) -> int:
        wanted = word.encode(errors="surrogatepass")
        offsets, data = self._offsets, self._data
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if bytes(data[offsets[middle] : offsets[middle + 1]]) < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < len(self) and bytes(data[offsets[low] : offsets[low + 1]]) == wanted
        return low if found else -1


def vocabulary_schema(analyser: Analyser, stems: Mapping[str, str]) -> pa.Schema:
    """Returns the schema of a vocabulary file, with metadata to restore the analyser.

    Args:
        analyser: The analyser of the snapshot.
        stems: Some words and their stems, to detect a stemmer that differs.
    """
    return SCHEMA.with_metadata(
        {
            "analysis": str(text_analysis.VERSION),
            "language": analyser.language,
            "stop_words": json.dumps(sorted(analyser.stop_words), ensure_ascii=False),
            "stemmer": text_analysis.STEMMER_VERSION,
            "stems": json.dumps(stems, ensure_ascii=False),
        }
    )
