"""Registration of the models of a snapshot in the model registry.

Models are registered before the snapshot is published, since its manifest names their versions. A
build that dies in between leaves an unused version, which does no harm.
"""

from __future__ import annotations

from pathlib import Path

from nearline.contract import EmbedderInfo
from nearline.internal.v1 import model_pb2
from nearline.store.registry import Registry, digest_of, name_of
from nearline.store.snapshot import Store
from nearline.v1 import snapshot_pb2
from retrieval.behaviour.table_files import HISTORIES, ITEMS_FILE, USERS_FILE
from retrieval.behaviour.tables import FOLDER, ranker_file
from retrieval.snapshots.aliases import operator_name

_TRAINED_ON = (f"{HISTORIES}.", ITEMS_FILE, USERS_FILE)


def register_models(
    store: Store,
    manifest: snapshot_pb2.Manifest,
    folder: Path,
    embedder: EmbedderInfo | None,
    parent: snapshot_pb2.Manifest | None,
) -> list[snapshot_pb2.ModelRef]:
    """Returns the versions of a snapshot's embedder and rankers; registers new ones.

    Args:
        store: The store.
        manifest: Manifest so far: embedder, files and behaviour.
        folder: Contains the files of the manifest.
        embedder: Describes the embedder; None if the user brings the vectors.
        parent: The previous snapshot, whose models may be the same; None if there is none.
    Raises: StoreError: no space, no permission.
    """
    registry = Registry(store)
    before = {(one.kind, one.fingerprint): one for one in parent.models} if parent else {}
    refs = []
    if manifest.embedder.fingerprint and embedder is not None:
        known = before.get(("embedder", embedder.fingerprint))
        refs.append(known or _embedder(registry, embedder))
    entries = {entry.path: entry for entry in manifest.files}
    rankers = []
    for blend in manifest.behaviour.blends:
        if blend.ranker.kept:
            # A build without training carries the file over unchanged.
            file = entries[f"{FOLDER}/{ranker_file(repeats=blend.repeats)}"]
            known = before.get(("ranker", file.sha256))
            rankers.append(known or _ranker(registry, manifest, blend, folder, refs))
    return [*refs, *rankers]


def embedder_card(info: EmbedderInfo) -> model_pb2.ModelCard:
    """Returns the registry's card of an embedding model from the description of its service."""
    backend, _, precision = info.backend.partition("-")
    return model_pb2.ModelCard(
        ref=snapshot_pb2.ModelRef(fingerprint=info.fingerprint),
        who=operator_name(),
        metrics={"min_cosine": info.min_cosine},
        settings={
            "model": info.model,
            "dim": str(info.dim),
            "max_tokens": str(info.max_tokens),
            "backend": backend,
            "precision": precision,
        },
    )


def _embedder(registry: Registry, info: EmbedderInfo) -> snapshot_pb2.ModelRef:
    """Returns the version with this fingerprint; a new one has no files."""
    known = registry.find("embedder", info.fingerprint)
    return known or registry.add("embedder", name_of(info.model), embedder_card(info))


def _ranker(
    registry: Registry,
    manifest: snapshot_pb2.Manifest,
    blend: snapshot_pb2.BlendCard,
    folder: Path,
    parents: list[snapshot_pb2.ModelRef],
) -> snapshot_pb2.ModelRef:
    file = ranker_file(repeats=blend.repeats)
    name = f"{manifest.collection}-{Path(file).stem}"
    entries = {entry.path: entry for entry in manifest.files}
    known = registry.find("ranker", entries[f"{FOLDER}/{file}"].sha256, name)
    if known is not None:
        return known
    ranker = blend.ranker
    trained_on = [
        one
        for path, one in sorted(entries.items())
        if path.startswith(f"{FOLDER}/") and Path(path).name.startswith(_TRAINED_ON)
    ]
    card = model_pb2.ModelCard(
        who=operator_name(),
        description=f"{ranker.trees} trees over {len(ranker.features)} features",
        training_data_sha256=digest_of(trained_on),
        metrics={
            f"validation_ndcg@{blend.k}": ranker.validation_ndcg,
            f"blend_ndcg@{blend.k}": ranker.blend_ndcg,
            "gain_low": ranker.gain_low,
            "gain_high": ranker.gain_high,
        },
        settings={
            "grown": ranker.settings,
            "split": blend.split,
            "factors_id": manifest.behaviour.factors_id,
        },
        parents=parents,
        snapshot_id=manifest.snapshot_id,
        collection=manifest.collection,
    )
    return registry.add("ranker", name, card, folder / FOLDER / file)
