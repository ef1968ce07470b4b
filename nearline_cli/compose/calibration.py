"""Learns how to answer and refuse from labelled questions, asked of files not yet published."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.snapshot import MANIFEST, Store, message_to_json
from nearline.store.durable import store_errors
from nearline.v1 import snapshot_pb2
from nearline_cli.local.processes import retrieval_process

if TYPE_CHECKING:
    from generation.training.labels import LabelledQuestion
    from index_builder.options.build_options import Calibrate


def load_questions(folder: Path, split: str) -> list[LabelledQuestion]:
    """Reads labelled questions to calibrate on.

    Raises: InvalidRequest: they cannot be read, or are too few.
    """
    from generation.training import calibrator as fitting
    from generation.training import labels

    questions = labels.load_labels(folder, split)
    fitting.check_question_counts(questions)
    return questions


def make_calibrator(
    questions: list[LabelledQuestion], embedder: EmbeddingClient, target_risk: float
) -> Calibrate:
    """Returns what a build calls to calibrate: it asks real services over the files that it wrote.

    Args:
        questions: Labelled questions about the collection.
        embedder: The embedding service that the build embeds with.
        target_risk: Share of answers without evidence that is allowed, 0..1.
    """
    from generation.evidence import calibration
    from generation.training.calibrator import fit_calibration
    from generation.training.dataset import DatasetBuilder

    async def calibrate(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.AnswerCard:
        with draft_store(folder, manifest) as store:
            async with (
                retrieval_process(store, embedding=embedder.address) as router,
                RetrievalClient(router.address) as retriever,
            ):
                observer = DatasetBuilder(
                    retriever, embedder, manifest.collection, int(manifest.documents)
                )
                observed = await observer.observe(questions, advance, hide=True)
        return calibration.to_proto(fit_calibration(observed, target_risk=target_risk))

    return calibrate


@contextlib.contextmanager
def draft_store(folder: Path, manifest: snapshot_pb2.Manifest) -> Iterator[Path]:
    """Yields a store, for the length of the block, of the files of a snapshot under a manifest.

    The files are linked to, not copied, and the folder is left as it is.

    Args:
        folder: Holds the files that the manifest lists; a manifest there does not count.
        manifest: The manifest.
    """
    from index_builder.pipeline.publisher import promote

    with tempfile.TemporaryDirectory(prefix="nearline-draft-") as root:
        store = Store(Path(root))
        target = store.snapshots_folder(manifest.collection) / manifest.snapshot_id
        with store_errors(target):
            target.mkdir(parents=True)
            for entry in folder.iterdir():
                if entry.name != MANIFEST:
                    (target / entry.name).symlink_to(entry.absolute())
            (target / MANIFEST).write_text(message_to_json(manifest), "utf-8")
        promote(store, manifest, "a draft, to be asked before it is published")
        yield Path(root)
