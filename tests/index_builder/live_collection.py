"""A collection with a corpus on disk, a change log in memory, builds and their content."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_builder.options.build_options import BuildOptions, Mode
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.builder import build_corpus
from index_builder.pipeline.compaction import compact, compaction_options
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline.contract import Attributes, Embedder, Item
from nearline.internal.v1 import change_pb2
from nearline.items.documents import document_spans, text_to_embed
from nearline.store.snapshot import Store, partition_of, shard_folder
from nearline.v1 import snapshot_pb2
from retrieval.changelog.records import Change, ChangeKind, ChangeWrite
from retrieval.changelog.start_position import watermark_of
from retrieval.index.item_table import ItemTable
from retrieval.index.vectors.faiss_index import FaissIndex
from retrieval.router.empty_snapshot import publish_empty_snapshot
from retrieval.router.new_collection import CollectionShape
from retrieval.snapshots import aliases
from tests.index_builder.embedders import HashEmbedder, vector_of
from tests.retrieval.changelog.memory_log import MemoryLog

START_S = 1_700_000_000


class Clock:
    """Seconds since `START_S`, as the log's clock in microseconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> int:
        return us(self.now)


def us(seconds: float) -> int:
    """Returns seconds after the start in microseconds since 1970."""
    return int((START_S + seconds) * 1_000_000)


class Living:
    """One collection.

    Args:
        folder: Empty folder.
        url: Of the store; empty: in the folder.
        shards: Shards of its snapshots.
    """

    def __init__(self, folder: Path, url: str = "", shards: int = 1) -> None:
        self.folder = folder
        self.options = BuildOptions(
            store=url or str(folder / "store"), golden_queries=0, shards=shards
        )
        self.store = Store.open(self.options.store)
        self.clock = Clock()
        self.log = MemoryLog(clock=self.clock)
        self.embedder = HashEmbedder()

    def make_log(self, follows: str = "") -> None:
        """Registers the log in the store; a successor replaces the current log."""
        number = sum(1 for _ in self.store.log_records("default")) + 1
        record = change_pb2.LogRecord(number=number, log_id=self.log.log_id, follows=follows)
        self.store.create_log_record("default", record)

    async def create_empty(self, **properties: object) -> None:
        """Creates the collection as over the API, without a document; and its log."""
        info = await self.embedder.info()
        shape = CollectionShape(
            dim=info.dim,
            metric="cosine",
            shards=self.options.shards,
            language="english",
            chunk_tokens=240,
            overlap_sentences=1,
            fields=[],
            search_weights={},
            search_languages={},
            embedder=info,
        )
        changed = dataclasses.replace(shape, **properties)  # type: ignore[arg-type]
        snapshot_id = publish_empty_snapshot(self.store, "default", changed)
        aliases.create(self.store, "default", snapshot_id)
        self.make_log()

    def corpus(self, texts: Mapping[str, str], at: float, name: str = "corpus") -> Path:
        """Writes a corpus of texts by id, last modified at a time."""
        path = self.folder / f"{name}.jsonl"
        lines = [json.dumps({"id": key, "text": text, "from": name}) for key, text in texts.items()]
        path.write_text("\n".join(lines))
        os.utime(path, ns=(us(at) * 1_000, us(at) * 1_000))
        return path

    async def build(
        self,
        *paths: Path,
        mode: Mode = Mode.REPLACE,
        embedder: Embedder | None = None,
        log: MemoryLog | None = None,
        **changes: object,
    ) -> BuildResult:
        """Builds from files."""
        options = dataclasses.replace(self.options, mode=mode, **changes)  # type: ignore[arg-type]
        corpus = Corpus(list(paths), DocumentColumns())
        return await build_corpus(corpus, options, embedder or self.embedder, log=log or self.log)

    async def compact(self) -> str:
        """Compacts the current snapshot, and returns the id of the new one."""
        options = compaction_options(self.options)
        return (await compact(options, self.log, self.embedder)).snapshot_id

    async def build_rows(self, rows: Iterable[Mapping[str, object]], **changes: object) -> None:
        """Builds from the rows of a corpus, as of second 10, and makes the log."""
        path = self.corpus({}, 10)
        path.write_text("\n".join(map(json.dumps, rows)))
        await self.build(path, **changes)  # type: ignore[arg-type]
        self.make_log()

    async def upsert(
        self, key: str, text: str, attributes: Attributes | None = None, **fields: object
    ) -> None:
        """Upserts a document like a router: cut and embedded."""
        item = Item(id=key, text=text)
        cut = self.options.chunks
        bounds = document_spans(item, cut.max_tokens, cut.overlap_sentences)
        matrix = np.stack([vector_of(text_to_embed("", text[a:b])) for a, b in bounds])
        change = Change(
            document_id=key,
            kind=ChangeKind.UPSERT,
            text=text,
            attributes=attributes or {},
            bounds=np.array(bounds, np.int64),
            vectors={self.embedder.fingerprint: matrix},
        )
        await self.append(dataclasses.replace(change, **fields))  # type: ignore[arg-type]

    async def delete(self, key: str) -> None:
        """Deletes a document."""
        await self.append(Change(document_id=key, kind=ChangeKind.DELETE))

    async def set(self, key: str, attributes: Attributes) -> None:
        """Sets attributes of a document."""
        await self.append(
            Change(document_id=key, kind=ChangeKind.ATTRIBUTES, attributes=attributes)
        )

    async def append(self, change: Change) -> None:
        """Appends a change of an item that exists in the current snapshot."""
        position = watermark_of(self.manifest).positions[partition_of(change.document_id)]
        await self.log.append([ChangeWrite(change, base_version=0, base_position=position)])

    @property
    def manifest(self) -> snapshot_pb2.Manifest:
        """Manifest of the current snapshot."""
        return self.store.manifest("default", self.store.alias_in_force("default").current)

    def texts(self) -> dict[str, str]:
        """Texts of the current snapshot by id."""
        return {key: str(row["text"]) for key, row in self.rows().items()}

    def rows(self) -> dict[str, dict[str, object]]:
        """Documents of the current snapshot by id, with every column."""
        import pyarrow as pa

        found = {}
        for folder in self._shards():
            table = pa.ipc.open_file(pa.memory_map(str(folder / "items.arrow"))).read_all()
            for row in table.to_pylist():
                found[row["id"]] = row | {"attributes": json.loads(row["attributes"])}
        return found

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Vectors of the current snapshot's documents by id: (chunks, d)."""
        manifest = self.manifest
        found = {}
        for number, folder in enumerate(self._shards()):
            items = ItemTable(folder / "items.arrow")
            index = FaissIndex.load(
                folder / "dense.faiss",
                manifest.index_factory,
                dim=manifest.dim,
                rows=manifest.shards[number].chunks,
            )
            for document in range(items.documents):
                found[items.id(document)] = index.reconstruct(items.rows_of(document))
        return found

    def _shards(self) -> Sequence[Path]:
        manifest = self.manifest
        self.store.fetch("default", manifest.snapshot_id)
        folder = self.store.snapshot_folder("default", manifest.snapshot_id)
        return [shard_folder(folder, shard.shard) for shard in manifest.shards]
