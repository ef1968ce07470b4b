"""The words of a snapshot: numbers, document frequencies, and how texts become words.

One Arrow file per snapshot, <snapshot>/lexical/vocabulary.arrow, one record per word in the order
of its UTF-8 bytes. Columns: word large_string; chunks uint32, how many chunks hold the word. Schema
metadata: analysis (version), language, stop_words (a JSON list), stemmer (its version), stems (a
JSON object: sampled words and what the stemmer made of them).
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
# Shards in one process are asked with the same text one after another.
_TEXTS_KEPT = 1_024
# A few words make up most of what is asked.
_WORDS_KEPT = 65_536


class Vocabulary:
    """Words of a snapshot, memory-mapped; one serves all shards, from several threads.

    Args:
        table: As the module says, one record batch.
        analyser: Makes words of texts.
    """

    def __init__(self, table: pa.Table, analyser: Analyser) -> None:
        words = table.column("word").combine_chunks()
        _, offsets, data = words.buffers()
        self._offsets = np.frombuffer(offsets, np.int64)[: len(words) + 1]
        self._data = memoryview(data if data is not None else b"")
        self._analyser = analyser
        self.chunks: NDArray[np.uint32] = table.column("chunks").to_numpy()
        self._number = lru_cache(_WORDS_KEPT)(self._find)
        self._numbers = lru_cache(_TEXTS_KEPT)(self._look_up)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def analyser(self) -> Analyser:
        """What makes words of texts."""
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
        Raises: SnapshotCorrupt: not such a file. SnapshotMismatch: texts were made into words by
            another version of the analysis, or by a stemmer that makes other stems.
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
                f"{path} is not a vocabulary that can be read ({error}); rebuild the snapshot"
            ) from error
        if version != text_analysis.VERSION or language not in text_analysis.LANGUAGES:
            raise SnapshotMismatch(
                f"{path} was made by text analysis {version} for language {language!r}, this "
                f"nearline has analysis {text_analysis.VERSION} and knows "
                f"{', '.join(text_analysis.LANGUAGES)}; rebuild the snapshot"
            )
        analyser = Analyser(language, stop_words)
        for (word, stem), here in zip(stems.items(), analyser.stems([*stems]), strict=True):
            if stem != here:
                raise SnapshotMismatch(
                    f"PyStemmer {text_analysis.STEMMER_VERSION} makes {here!r} of {word!r}, "
                    f"in {path} "
                    f"PyStemmer {stemmer} made {stem!r}; install that version or rebuild the "
                    "snapshot"
                )
        return cls(table, analyser)

    def numbers(self, text: str) -> tuple[int, ...]:
        """Returns the numbers of a text's words, in order, repeated ones too, unknown ones left
        out.

        A word takes a binary search, about 10 microseconds the first time.
        """
        return self._numbers(text)

    def words(self, text: str) -> list[str]:
        """Returns the words of a text, in order, repeated ones and unknown ones too."""
        return self._analyser.words(text)

    def terms(self, text: str) -> list[tuple[str, int]]:
        """Returns the words of a text, each once, in order, and how many chunks have each."""
        words = dict.fromkeys(self._analyser.words(text))
        numbers = [(word, self._number(word)) for word in words]
        return [(word, int(self.chunks[n]) if n >= 0 else 0) for word, n in numbers]

    def number(self, word: str) -> int:
        """Returns the number of an analysed word, 0..n-1; -1 where no chunk has it."""
        return self._number(word)

    def _look_up(self, text: str) -> tuple[int, ...]:
        found = map(self._number, self._analyser.words(text))
        return tuple(number for number in found if number >= 0)

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
        there = low < len(self) and bytes(data[offsets[low] : offsets[low + 1]]) == wanted
        return low if there else -1


def vocabulary_schema(analyser: Analyser, stems: Mapping[str, str]) -> pa.Schema:
    """Returns the schema of a vocabulary file, with what this analyser needs to be made again.

    Args:
        analyser: What made the words.
        stems: Some words and their stems, to tell a stemmer that makes others.
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
