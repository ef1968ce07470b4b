"""The vocabulary of a snapshot: word numbers, document frequencies and text analysis.

One Arrow file per snapshot, <snapshot>/lexical/vocabulary.arrow, with one record per word in the
order of UTF-8 bytes. Columns: word large_string; chunks uint32, the number of chunks with the word.
Schema metadata: analysis (version), language, stop_words (a JSON list), stemmer (version), stems (a
JSON object of sampled words and their stems). If attributes have other languages:
other_languages, a JSON object of the same two, stop_words and stems, by language. Their words are
stored after a prefix, see `language_words`; their forms are in a folder of the language.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearline.errors import SnapshotCorrupt, SnapshotMismatch
from retrieval.index.lexical import text_analysis
from retrieval.index.lexical.language_words import (
    LanguageWords,
    NumberedWords,
    OtherLanguage,
    WordRange,
    prefix_of,
)
from retrieval.index.lexical.lexical_query import (
    LexicalQuery,
    MoreWords,
    PrefixQuery,
    QueryParser,
)
from retrieval.index.lexical.synonyms import SynonymTable
from retrieval.index.lexical.text_analysis import Analyser
from retrieval.index.lexical.word_forms import WordForms
from retrieval.index.weak_methods import weak_method

FOLDER = "lexical"
FILE = "vocabulary.arrow"
SCHEMA = pa.schema([("word", pa.large_string()), ("chunks", pa.uint32())])
# All shards of a process search for the same text in turn.
_CACHED_TEXTS = 1_024
# Of longer texts, which may take a megabyte each, only the last few are cached.
_LONG_TEXT = 1_024
_CACHED_LONG_TEXTS = 8
# A few words make up most queries.
_CACHED_WORDS = 65_536


class Vocabulary:
    """The memory-mapped words of a snapshot, shared by all shards and threads.

    Args:
        table: See the module; one record batch.
        analyser: Turns texts into words.
        forms: Words as they are written; None in snapshots without them.
        synonyms: Optional; synonyms of words of queries.
        others: Other languages, which attributes have. Optional.
    """

    def __init__(
        self,
        table: pa.Table,
        analyser: Analyser,
        forms: WordForms | None = None,
        synonyms: SynonymTable | None = None,
        others: Sequence[OtherLanguage] = (),
    ) -> None:
        words = table.column("word").combine_chunks()
        _, offsets, data = words.buffers()
        # Not an array, whose numbers are slower to read one by one.
        self._offsets = memoryview(offsets).cast("B").cast("q") if len(words) else array("q", [0])
        self._words = len(words)
        self._data = memoryview(data if data is not None else b"")
        self._analyser = analyser
        self.chunks: NDArray[np.uint32] = table.column("chunks").to_numpy()
        self._number = lru_cache(_CACHED_WORDS)(weak_method(self._find))
        numbered = NumberedWords(
            self._number,
            weak_method(self._chunks_of),
            weak_method(self.word),
            weak_method(self._place),
        )
        self._own_words = LanguageWords(numbered, analyser, forms, synonyms)
        self._parser = QueryParser(
            analyser,
            self._own_words,
            [
                LanguageWords(numbered, *one, prefix=prefix_of(one.analyser.language))
                for one in others
            ],
        )
        self._others = {one.analyser.language: one.analyser for one in others}
        self._query = lru_cache(_CACHED_TEXTS)(self._parser.parse)
        self._long_query = lru_cache(_CACHED_LONG_TEXTS)(self._parser.parse)

    def __len__(self) -> int:
        return self._words

    @property
    def analyser(self) -> Analyser:
        """Turns texts into words."""
        return self._analyser

    @property
    def language(self) -> str:
        """Language of the stemmer, or "none"."""
        return self._analyser.language

    @property
    def other_analysers(self) -> Mapping[str, Analyser]:
        """The analysers of other languages, which attributes have, by language."""
        return self._others

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
            stemmer = metadata["stemmer"]
            found: dict[str, Mapping[str, Any]] = {
                language: {key: json.loads(metadata[key]) for key in ("stop_words", "stems")},
                **json.loads(metadata.get("other_languages", "{}")),
            }
            analysed = {
                name: (list[str](one["stop_words"]), dict[str, str](one["stems"]))
                for name, one in found.items()
            }
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
            raise SnapshotCorrupt(
                f"{path} is not a readable vocabulary ({error}); rebuild the snapshot"
            ) from error
        analysers = []
        for name, (stop_words, stems) in analysed.items():
            if version not in text_analysis.VERSIONS or name not in text_analysis.LANGUAGES:
                raise SnapshotMismatch(
                    f"{path} was built with text analysis {version} for language {name!r}; this "
                    f"nearline has analysis {text_analysis.VERSION} at most and the languages "
                    f"{', '.join(text_analysis.LANGUAGES)}; rebuild the snapshot"
                )
            analysers.append(Analyser(name, stop_words, version))
            _check_stems(path, analysers[-1], stems, stemmer)
        analyser, *others = analysers
        if version == 1:
            return cls(table, analyser)
        folder = snapshot / FOLDER
        return cls(
            table,
            analyser,
            WordForms.load(folder),
            SynonymTable.load(folder, analyser),
            [
                OtherLanguage(
                    one, WordForms.load(folder / one.language), SynonymTable.load(folder, one)
                )
                for one in others
            ],
        )

    def query(self, text: str) -> LexicalQuery:
        """Returns the parsed query of a text.

        Finding a word that is not cached takes about 10 microseconds (a binary search).
        """
        return self._query(text) if len(text) <= _LONG_TEXT else self._long_query(text)

    def query_with(self, text: str, more: MoreWords) -> LexicalQuery:
        """Returns the parsed query, with words beyond the vocabulary; see `QueryParser.parse`."""
        return self._parser.parse(text, more)

    def prefix_query(self, text: str, more: MoreWords | None = None) -> PrefixQuery:
        """Returns the parsed beginning of a title; `more` are words beyond the vocabulary."""
        return self._parser.parse_prefix(text, more)

    def correction(self, text: str) -> str:
        """Returns what was typed with known words in place of unknown ones; empty if none is.

        A last word that begins a known word is not unknown.
        """
        return self._parser.correction(text)

    def starting(self, prefix: str) -> WordRange:
        """Returns the words that begin with a prefix, or as one of their forms does.

        They are those of the language of the collection.
        """
        return self._own_words.range_starting(prefix)

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

    def word(self, number: int) -> str:
        """Returns the word with a number."""
        start, stop = self._offsets[number], self._offsets[number + 1]
        return bytes(self._data[start:stop]).decode(errors="surrogatepass")

    def _chunks_of(self, number: int) -> int:
        return int(self.chunks[number])

    def _find(self, word: str) -> int:
        wanted = word.encode(errors="surrogatepass")
        offsets, place = self._offsets, self._place(wanted)
        if place == self._words:
            return -1
        return place if bytes(self._data[offsets[place] : offsets[place + 1]]) == wanted else -1

    def _place(self, wanted: bytes) -> int:
        """Returns the number of the first word that is not before a text, in order of bytes."""
        offsets, data = self._offsets, self._data
        low, high = 0, self._words
        while low < high:
            middle = (low + high) // 2
            if bytes(data[offsets[middle] : offsets[middle + 1]]) < wanted:
                low = middle + 1
            else:
                high = middle
        return low


def vocabulary_schema(
    analyser: Analyser,
    stems: Mapping[str, str],
    others: Sequence[tuple[Analyser, Mapping[str, str]]] = (),
) -> pa.Schema:
    """Returns the schema of a vocabulary file, with metadata to restore the analysers.

    Args:
        analyser: The analyser of the snapshot.
        stems: Some words and their stems, to detect a stemmer that differs.
        others: The same two for each other language, which attributes have. Optional.
    """
    metadata = {
        "analysis": str(analyser.version),
        "language": analyser.language,
        "stop_words": json.dumps(sorted(analyser.stop_words), ensure_ascii=False),
        "stemmer": text_analysis.STEMMER_VERSION,
        "stems": json.dumps(stems, ensure_ascii=False),
    }
    if others:
        found = {
            other.language: {"stop_words": sorted(other.stop_words), "stems": dict(stems)}
            for other, stems in others
        }
        metadata["other_languages"] = json.dumps(found, ensure_ascii=False)
    return SCHEMA.with_metadata(metadata)


def _check_stems(path: Path, analyser: Analyser, stems: Mapping[str, str], stemmer: str) -> None:
    """Raises SnapshotMismatch if words are stemmed otherwise than in the snapshot."""
    for (word, stem), own_stem in zip(stems.items(), analyser.stems([*stems]), strict=True):
        if stem != own_stem:
            raise SnapshotMismatch(
                f"PyStemmer {text_analysis.STEMMER_VERSION} stems {word!r} as {own_stem!r}; "
                f"in {path} PyStemmer {stemmer} stemmed it as {stem!r}; install that version "
                "or rebuild the snapshot"
            )
