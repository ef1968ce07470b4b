"""The stage of a build that adds models of behaviour, trained or inherited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index_builder.behaviour.content_factors import predict_factors
from index_builder.behaviour.id_remap import map_ids, remap_tables
from index_builder.behaviour.manifest_entries import describe_debias, describe_ranker
from index_builder.behaviour.table_writer import write_tables
from index_builder.interactions.recorded_interactions import drop_deleted_histories
from index_builder.options.training_options import TrainingOptions
from index_builder.pipeline.document_vectors import DocumentRows, read_document_rows
from index_builder.pipeline.snapshot_writer import SnapshotInputs
from index_builder.pipeline.training_data import InteractionCounts, collect_training_data
from nearline.errors import NotFound, SnapshotCorrupt, SnapshotMismatch
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.tables import BehaviourTables, read_tables

UNKNOWN_ITEM = "an item that is not in the corpus"


class BehaviourResult(NamedTuple):
    """The result of the stage.

    left_out: Number of interactions left out, by reason. sources: Number of interactions by origin.
    inherited: Id of the snapshot that trained the models; empty if this build did.
    notes: Messages for the user. popularity: By document id, 0..1; others have none.
    """

    card: snapshot_pb2.BehaviourCard
    left_out: Mapping[str, int]
    sources: InteractionCounts = InteractionCounts()
    inherited: str = ""
    notes: Sequence[str] = ()
    popularity: Mapping[str, float] = {}

    def record(self) -> dict[str, object]:
        """Returns the result as one JSON object."""
        return {
            "interactions": self.card.interactions,
            "users": self.card.users,
            "items": self.card.items,
            **self.sources._asdict(),
            "left_out": dict(self.left_out),
            "blend": {_blend_key(one): _describe_blend(one) for one in self.card.blends},
            "validation_ndcg": {
                _blend_key(one): round(one.validation_ndcg, 4) if one.split else None
                for one in self.card.blends
            },
            "popularity_debias": {name: one.value for name, one in self._discounts().items()},
            "debias": {name: describe_debias(one) for name, one in self._discounts().items()},
            "ranker": {_blend_key(one): describe_ranker(one.ranker) for one in self.card.blends},
            "inherited": self.inherited,
            "notes": list(self.notes),
        }

    def _discounts(self) -> Mapping[str, snapshot_pb2.DebiasCard]:
        by_blend = {_blend_key(one): one.debias for one in self.card.blends}
        return {**by_blend, "similar": self.card.similar_debias}


async def add_behaviour(inputs: SnapshotInputs, folder: Path) -> BehaviourResult | None:
    """Writes the folder `behaviour` of a snapshot.

    Without new interactions, the models of the previous snapshot are mapped to the new documents.

    Args:
        folder: Folder of the snapshot.
    Returns: None if nothing is trained and nothing of the previous models is left.
    Raises: InvalidRequest: as `collect_training_data` and `train_behaviour`. SnapshotCorrupt: the
        previous snapshot cannot be read. StoreError: no space, no permission.
    """
    parent = inputs.lineage.parent if inputs.lineage else None
    training = inputs.options.training
    if training is None and not (parent and parent.HasField("behaviour")):
        return None
    deleted_users, previous = inputs.options.deleted_users, None
    if training is None:
        assert parent is not None, "there is nothing to add"
        previous = await inputs.clock.in_thread(
            lambda: read_tables(Store.open(inputs.options.store), parent)
        )
        if deleted_users is not None:
            previous = previous._replace(
                histories=await drop_deleted_histories(previous.histories, deleted_users)
            )
    sources = InteractionCounts()
    if training is not None:
        training, sources = await collect_training_data(training, inputs)
    total = None if training is None else 100
    with inputs.clock.stage("behaviour", total, "%") as advance:
        result = await inputs.clock.in_thread(
            lambda: _add(inputs, training, parent, previous, folder, advance)
        )
    return None if result is None else result._replace(sources=sources)


def _add(
    inputs: SnapshotInputs,
    training: TrainingOptions | None,
    parent: snapshot_pb2.Manifest | None,
    previous: BehaviourTables | None,
    folder: Path,
    advance: Callable[[int], None],
) -> BehaviourResult | None:
    options = inputs.options
    documents = read_document_rows(inputs.spool, options.shards)
    if training is not None:
        # Compactions inherit models: their process does not load scipy and implicit.
        from index_builder.behaviour.comparison import ServingModels
        from index_builder.behaviour.training import train_behaviour

        live = _current_models(options.store, options.collection)
        serving = None if live is None else ServingModels(*live)
        trained = train_behaviour(
            training, documents.ids, options.seed, advance, inputs.device, serving
        )
        left_out = dict(training.left_out)
        if trained.unknown:
            left_out[UNKNOWN_ITEM] = trained.unknown
        result = BehaviourResult(trained.card, left_out, notes=trained.notes)
        tables = trained.tables
    else:
        assert parent is not None and previous is not None, "there is nothing to add"
        tables = remap_tables(previous, map_ids(previous.ids, documents.ids), documents.ids)
        if not tables.interactions.any():
            return None
        card = snapshot_pb2.BehaviourCard()
        card.CopyFrom(parent.behaviour)
        # They were judged when the models were new.
        del card.comparisons[:]
        card.items = int(np.count_nonzero(tables.interactions))
        result = BehaviourResult(card, {}, inherited=parent.snapshot_id)
    tables = _with_cold_items(tables, documents, inputs)
    result.card.factors_id = factors_id(tables)
    write_tables(tables, folder, options.shards)
    advance(1)
    return result._replace(popularity=_popularity(tables))


def _current_models(
    url: str, collection: str
) -> tuple[snapshot_pb2.BehaviourCard, BehaviourTables] | None:
    """Returns the models of the current snapshot; None if there are none that can be read."""
    store = Store.open(url)
    try:
        manifest = store.manifest(collection, store.alias_in_force(collection).current)
        if not manifest.HasField("behaviour"):
            return None
        return manifest.behaviour, read_tables(store, manifest)
    except (NotFound, SnapshotCorrupt, SnapshotMismatch):
        return None  # There is nothing to compare with; a build may be the repair.


def _popularity(tables: BehaviourTables) -> dict[str, float]:
    """Returns log(1 + n) of the n interactions of each document, as a share of the largest."""
    known = np.flatnonzero(tables.interactions)
    counts = np.log1p(tables.interactions[known].astype(np.float64))
    shares = (counts / counts.max(initial=1.0)).tolist()
    ids = [tables.ids[at] for at in known.tolist()]
    return dict(zip(ids, shares, strict=True))


def _with_cold_items(
    tables: BehaviourTables, documents: DocumentRows, inputs: SnapshotInputs
) -> BehaviourTables:
    """Adds factors of items without interactions, predicted from their content."""
    if tables.interactions.all():
        return tables
    content = documents.vectors(inputs.vectors.matrix(inputs.spool.chunks))
    vectors = predict_factors(content, tables.factors.vectors, tables.interactions)
    return tables._replace(factors=tables.factors._replace(vectors=vectors))


def factors_id(tables: BehaviourTables) -> str:
    """Returns the hash of the factors, in lower-case hex."""
    return hashlib.sha256(np.ascontiguousarray(tables.factors.vectors).data.cast("B")).hexdigest()


def _blend_key(blend: snapshot_pb2.BlendCard) -> str:
    return "repeats" if blend.repeats else "no_repeats"


def _describe_blend(blend: snapshot_pb2.BlendCard) -> str:
    return ", ".join(f"{part.weight:g} x {part.model} {part.settings}" for part in blend.parts)
