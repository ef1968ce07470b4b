"""One run of a build: read, cut, embed, index, measure, publish."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.attribute_columns import infer_fields
from index_builder.documents.bad_rows import BadRows
from index_builder.documents.detected_lists import DetectedList
from index_builder.documents.records import SourceCount, SourceRow
from index_builder.documents.spool import Spool
from index_builder.documents.vector_file import VectorFile, pack_lengths
from index_builder.execution.embedding import embed_chunks
from index_builder.execution.executor import Executor, LocalExecutor
from index_builder.execution.progress import StageClock
from index_builder.indexes import faiss_writer
from index_builder.indexes.fusion_tuner import check_judged
from index_builder.indexes.index_trials import apply_choice, choose_index
from index_builder.indexes.shard_builder import find_device
from index_builder.lineage.document_merger import DocumentMerger, MergeSummary
from index_builder.lineage.lineage import Lineage
from index_builder.lineage.parent_snapshot import write_deleted
from index_builder.options.build_options import BuildOptions
from index_builder.options.index_selection import MIN_VECTORS, IndexChoice
from index_builder.pipeline.behaviour_stage import BehaviourResult, add_behaviour
from index_builder.pipeline.build_result import BuildResult
from index_builder.pipeline.intake import Intake
from index_builder.pipeline.model_registration import register_models
from index_builder.pipeline.publisher import go_live
from index_builder.pipeline.search_fields import search_fields
from index_builder.pipeline.snapshot_writer import SnapshotInputs, write_snapshot
from index_builder.pipeline.work_mover import VectorUploader, download_vectors
from nearline.contract import Embedder, EmbedderInfo, Embeddings
from nearline.errors import InvalidRequest
from nearline.store.durable import store_errors, write_durably
from nearline.store.manifest_files import file_entry
from nearline.store.publication import publish, remove_temporary, temporary_snapshot
from nearline.store.registry import describe_ref
from nearline.store.snapshot import DIVIDED_VERSION, RERANKER_FILE, Store
from nearline.store.snapshot_ids import new_snapshot_id
from nearline.store.work import BuildWork
from nearline.v1 import release_pb2, snapshot_pb2

_READ = "read"
_DELETED = "deleted.arrow"
# Reads every row once; counts malformed rows in the argument.
Reader: TypeAlias = Callable[[BadRows], Iterable[SourceRow]]


@dataclass(slots=True)
class BuildRun:
    """One run of a build; see `builder.build`."""

    reader: Reader
    sources: Sequence[SourceCount]
    options: BuildOptions
    embedder: Embedder | None
    embedder_info: EmbedderInfo | None
    clock: StageClock
    require_vectors: bool = False
    lineage: Lineage | None = None
    inherit: bool = False
    work: BuildWork | None = None
    executor: Executor = field(default_factory=LocalExecutor)
    lists: Sequence[DetectedList] = ()
    merged: MergeSummary | None = None
    behaviour: BehaviourResult | None = None
    verdict: release_pb2.GateVerdict | None = None
    reranker: snapshot_pb2.RerankerCard | None = None

    async def run(self, folder: Path) -> BuildResult:
        await self.clock.in_thread(lambda: self._begin(folder))
        # A language of a field that is not searched fails the build before hours of embedding.
        searched = search_fields(self.options, self.lineage)
        # So does a GPU that is named and missing.
        device = await self.clock.in_thread(
            lambda: find_device(self.options.device, self.clock.check_cancelled)
        )
        spool = Spool(folder, self.options.shards)
        vectors = VectorFile(folder)
        bad_rows = BadRows(self.options.max_bad_rows)
        try:
            brought = await self._read(folder, spool, vectors, bad_rows)
            # Attributes of several kinds fail the build before hours of embedding.
            notes: list[str] | None = [] if self.inherit else None
            parent = self.lineage.parent if self.inherit and self.lineage is not None else None
            before = () if parent is None else parent.attributes
            inferred = {one.name for one in before if one.inferred}
            fields = await self.clock.in_thread(
                lambda: infer_fields(
                    spool.iter_attributes(), self.options.attributes, notes, inferred
                )
            )
            # A collection that was declared to have lists may not have any yet.
            lists = {one.name for one in before if one.is_list}
            for one in fields:
                one.is_list = one.is_list or one.name in lists
            if notes and self.merged is not None:
                self.merged = replace(self.merged, notes=[*self.merged.notes, *notes])
            if self.options.judged is not None:
                check_judged(self.options.judged, spool, embedded=not brought)
            if self.options.calibrate is not None and brought:
                raise InvalidRequest(
                    "the documents bring their own vectors, so no model can embed the questions "
                    "for calibration; remove --calibrate-on",
                    field="calibrate_on",
                )
            dim = vectors.dim if brought else self._required_embedder_info().dim
            factory = faiss_writer.choose_factory(self.options.index, spool.chunks)
            sizes = [chunks for _, chunks in spool.shard_sizes()]
            faiss_writer.check_factory(factory, dim, sizes)
            embedded = 0 if brought else await self._embed(folder, spool, vectors)
            choice = await self._choose(spool, vectors)
            options = self.options
            if choice is not None:
                options = replace(options, index=apply_choice(options.index, choice))
            inputs = SnapshotInputs(
                spool=spool,
                vectors=vectors,
                options=options,
                sources=self.sources,
                bad_rows=bad_rows,
                fields=fields,
                search_fields=searched,
                embedder=None if brought else self.embedder,
                embedder_info=None if brought else self.embedder_info,
                clock=self.clock,
                device=device,
                choice=choice,
                lineage=self.lineage,
                deleted_file=folder / _DELETED,
                inherited=self._inherited(),
            )
            manifest, target, epoch = await self._publish(inputs, folder)
            _, truncated = vectors.lengths(spool.chunks)
        finally:
            vectors.close()
            spool.close()
        reused = self.merged.reused if self.merged else 0
        return BuildResult(
            snapshot_id=manifest.snapshot_id,
            collection=manifest.collection,
            folder=target,
            epoch=epoch,
            documents=manifest.documents,
            chunks=manifest.chunks,
            embedded=embedded,
            resumed=0 if brought else spool.chunks - embedded - reused,
            truncated=int(truncated.sum()),
            dim=manifest.dim,
            index_factory=manifest.index_factory,
            recall_at_10=manifest.quality.recall_at_10,
            words=manifest.lexical.words,
            dense_weight=manifest.fusion.dense_weight if manifest.HasField("fusion") else None,
            tuned_ndcg_at_10=(
                manifest.quality.tuning_ndcg_at_10 if manifest.quality.tuning_queries else None
            ),
            reranker=self.reranker,
            answers=manifest.answers if manifest.HasField("answers") else None,
            bytes=sum(entry.bytes for entry in manifest.files),
            bad_rows=bad_rows.count,
            bad_row_sample=[str(row) for row in bad_rows.sample],
            lists=self.lists,
            seconds=self.clock.seconds,
            choice=choice,
            device=device.name,
            device_notes=device.notes,
            merged=self.merged,
            behaviour=self.behaviour.record() if self.behaviour else None,
            models=[describe_ref(one) for one in manifest.models],
            gate=self.verdict,
        )

    async def _read(
        self, folder: Path, spool: Spool, vectors: VectorFile, bad_rows: BadRows
    ) -> bool:
        """Fills the spool unless an earlier run did; returns whether documents bring vectors."""
        facts = spool.facts()
        if facts is not None:
            known = json.loads(facts[_READ])
            for source, documents in zip(self.sources, known["documents"], strict=True):
                source.documents = documents
            bad_rows.restore(known["bad_rows"], known["sample"])
        else:
            with self.clock.stage("read", None, "documents") as advance:
                known = await self.clock.in_thread(
                    lambda: self._fill(folder, spool, vectors, bad_rows, advance)
                )
        self.lists = [DetectedList(*one) for one in known.get("lists", ())]
        if known.get("merged"):
            self.merged = MergeSummary(**known["merged"])
        for source in self.sources:
            source.bad_rows = bad_rows.count_of(source.uri)
        return bool(known["brought"])

    def _fill(
        self,
        folder: Path,
        spool: Spool,
        vectors: VectorFile,
        bad_rows: BadRows,
        advance: Callable[[int], None],
    ) -> dict[str, Any]:
        spool.begin()
        vectors.clear()
        merger = None
        if self.lineage is not None:
            fingerprint = "" if self.require_vectors else self._required_embedder_info().fingerprint
            merger = DocumentMerger(self.lineage, self.options, self.sources, folder, fingerprint)
        try:
            intake = Intake(
                spool,
                vectors,
                self.options,
                bad_rows,
                require_vectors=self.require_vectors,
                merger=merger,
            )
            intake.add_rows(self.reader(bad_rows), advance)
            intake.finish()
            if merger is not None:
                with store_errors(folder):
                    write_deleted(folder / _DELETED, merger.deleted())
        finally:
            if merger is not None:
                merger.close()
        for source in self.sources:
            source.documents = intake.documents[source.uri]
        known: dict[str, Any] = {
            "brought": intake.has_vectors,
            "documents": [source.documents for source in self.sources],
            "bad_rows": bad_rows.counts(),
            "sample": bad_rows.sample,
            "lists": intake.lists.found,
            "merged": asdict(merger.summary()) if merger else None,
        }
        spool.mark_read({_READ: json.dumps(known)})
        return known

    def _required_embedder_info(self) -> EmbedderInfo:
        if self.embedder_info is None:
            raise InvalidRequest(
                "the documents bring no vectors, and there is no embedder; pass --embedding "
                "HOST:PORT, or name the column of the vectors with --vector-column",
                field="embedding",
            )
        return self.embedder_info

    def _begin(self, folder: Path) -> None:
        if self.lineage is not None:
            self.lineage = self.lineage.resumed(folder, self.work)
        elif self.work is not None:
            self.work.begin({})

    async def _embed(self, folder: Path, spool: Spool, vectors: VectorFile) -> int:
        info, work = self._required_embedder_info(), self.work
        if work is None:
            return await self._embed_rest(spool, vectors, lambda rows, reply: None)
        stored = await self.clock.in_thread(lambda: download_vectors(work, spool, vectors, info))
        async with VectorUploader(work, folder, self.options.shards, vectors, info) as uploader:
            if self.lineage is None:
                # A run of this machine may have been killed before it had uploaded these. With a
                # lineage, they may be those of the parent, which lie in the store as they are.
                left = np.flatnonzero(vectors.written(spool.chunks) & ~stored)
                lengths = pack_lengths(*vectors.lengths(spool.chunks))
                uploader.add(left, lengths[left])
            return await self._embed_rest(
                spool,
                vectors,
                lambda rows, reply: uploader.add(rows, pack_lengths(reply.tokens, reply.truncated)),
            )

    async def _embed_rest(
        self,
        spool: Spool,
        vectors: VectorFile,
        on_written: Callable[[NDArray[np.int64], Embeddings], None],
    ) -> int:
        assert self.embedder is not None
        done = int(vectors.written(spool.chunks).sum())
        with self.clock.stage("embed", spool.chunks, "chunks", done) as advance:
            return await embed_chunks(
                spool,
                vectors,
                self.embedder,
                self._required_embedder_info(),
                advance,
                self.executor,
                on_written,
            )

    def _inherited(self) -> snapshot_pb2.Manifest | None:
        """Returns the snapshot to inherit weights from; None unless it has the same model."""
        parent = self.lineage.parent if self.lineage and self.inherit else None
        fingerprint = self.embedder_info.fingerprint if self.embedder_info else ""
        return parent if parent and parent.embedder.fingerprint == fingerprint else None

    async def _choose(self, spool: Spool, vectors: VectorFile) -> IndexChoice | None:
        """Chooses the index by measuring, if the options say so and there are enough vectors."""
        options = self.options
        if not options.index.measures or spool.chunks < MIN_VECTORS:
            return None
        with self.clock.stage("choose", None, "indexes") as advance:
            return await self.clock.in_thread(
                lambda: choose_index(
                    vectors.matrix(spool.chunks),
                    options.index,
                    options.shards,
                    options.seed,
                    advance,
                )
            )

    async def _publish(
        self, inputs: SnapshotInputs, folder: Path
    ) -> tuple[snapshot_pb2.Manifest, Path, int | None]:
        store = Store.open(self.options.store)
        if self.lineage is not None:
            self.lineage.check_current()
        # A killed run left the name of its unfinished snapshot.
        note = folder / "snapshot_id"
        if note.exists():
            remove_temporary(store, self.options.collection, note.read_text("utf-8"))
        snapshot_id = new_snapshot_id()
        with store_errors(note):
            write_durably(note, snapshot_id.encode())
        if (on_named := self.options.on_named) is not None:
            await self.clock.in_thread(lambda: on_named(snapshot_id))
        with temporary_snapshot(store, self.options.collection, snapshot_id) as temporary:
            self.behaviour = await add_behaviour(inputs, temporary)
            popularity = inputs.options.popularity
            if popularity is None and self.behaviour is not None:
                popularity = self.behaviour.popularity
            inputs = replace(inputs, popularity=popularity)
            manifest = await write_snapshot(inputs, temporary, snapshot_id)
            if self.behaviour is not None:
                manifest.behaviour.CopyFrom(self.behaviour.card)
                manifest.schema_version = DIVIDED_VERSION
            if self.options.train_reranker is not None:
                with self.clock.stage("train reranker", 100, "%") as advance:
                    self.reranker = await self.options.train_reranker(temporary, manifest, advance)
                if self.reranker.weight:
                    manifest.reranker.CopyFrom(self.reranker)
                    manifest.files.append(file_entry(temporary / RERANKER_FILE, temporary))
            if self.options.calibrate is not None:
                with self.clock.stage("calibrate", None, "questions") as advance:
                    card = await self.options.calibrate(temporary, manifest, advance)
                manifest.answers.CopyFrom(card)
            # Before publishing: the manifest names the versions and never changes.
            parent = self.lineage.parent if self.lineage else None
            models = await self.clock.in_thread(
                lambda: register_models(store, manifest, temporary, self.embedder_info, parent)
            )
            manifest.models.extend(models)
            expected = 0
            if self.lineage is not None:
                expected = self.lineage.check_current()
                await self.lineage.check_replayable(manifest)
            with self.clock.stage("publish"):
                target = publish(store, temporary, manifest)
            epoch = await self._promote(store, manifest, expected)
        return manifest, target, epoch

    async def _promote(
        self, store: Store, manifest: snapshot_pb2.Manifest, expected: int
    ) -> int | None:
        """Returns the epoch of the promotion; None if it is not requested or is refused."""
        if not self.options.promote:
            return None
        with self.clock.stage("promote"):
            live = await go_live(store, manifest, self.options.gate, self.embedder, expected)
        self.verdict = live.verdict
        return live.epoch
