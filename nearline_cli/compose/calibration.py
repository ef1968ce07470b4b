"""Calibrates answers on labelled questions, asked of a snapshot before it is published."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.store.durable import store_errors
from nearline.store.json_records import message_to_json
from nearline.store.snapshot import MANIFEST, Store
from nearline.v1 import snapshot_pb2
from nearline_cli.local.processes import retrieval_process

if TYPE_CHECKING:
    from generation.training.labels import LabelledQuestion
    from index_builder.options.build_options import Calibrate


class CalibrationOptions(NamedTuple):
    """Options for the calibration of answers on labelled questions."""

    calibrate_on: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with labelled questions, which teach the snapshot which sentences answer "
            "and when to refuse: claims_SPLIT.jsonl with abstracts.jsonl, as in SciFact, or "
            "questions_SPLIT.jsonl, as in SQuAD. \\[default: as shipped, uncalibrated]",
        ),
    ] = None
    calibrate_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="Labels to calibrate on.")
    ] = "train"
    target_risk: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="With --calibrate-on: allowed share of answers without evidence.",
        ),
    ] = 0.15

    def questions(self) -> list[LabelledQuestion]:
        """Reads the labelled questions; an empty list if no folder is named.

        Raises:
            InvalidRequest: They cannot be read, or are too few.
        """
        if self.calibrate_on is None:
            return []
        # Imported late: scikit-learn is an extra.
        from generation.training.calibrator import check_question_counts
        from generation.training.labels import load_labels

        questions = load_labels(self.calibrate_on, self.calibrate_split)
        check_question_counts(questions)
        return questions


def make_calibrator(
    questions: list[LabelledQuestion], embedder: EmbeddingClient, target_risk: float
) -> Calibrate:
    """Returns the calibration step of a build: it runs real services over the files of the build.

    Args:
        questions: Labelled questions about the collection.
        embedder: The embedding service that the build uses.
        target_risk: Allowed share of answers without evidence, 0..1.
    """
    from generation.evidence import calibration
    from generation.training.calibrator import fit_calibration
    from generation.training.dataset import DatasetBuilder

    async def calibrate(
        folder: Path, manifest: snapshot_pb2.Manifest, advance: Callable[[int], None]
    ) -> snapshot_pb2.AnswerCard:
        async with draft_retriever(folder, manifest, embedder) as retriever:
            dataset = DatasetBuilder(
                retriever, embedder, manifest.collection, int(manifest.documents)
            )
            observed = await dataset.observe(questions, advance, hide=True)
        return calibration.to_proto(fit_calibration(observed, target_risk=target_risk))

    return calibrate


@contextlib.asynccontextmanager
async def draft_retriever(
    folder: Path, manifest: snapshot_pb2.Manifest, embedder: EmbeddingClient
) -> AsyncIterator[RetrievalClient]:
    """Yields a client of a router that serves unpublished files of a snapshot.

    Args:
        folder, manifest: See `draft_store`.
        embedder: The embedding service that the build uses.
    """
    with draft_store(folder, manifest) as store:
        async with (
            retrieval_process(store, embedding=embedder.address) as router,
            RetrievalClient(router.address) as retriever,
        ):
            yield retriever


@contextlib.contextmanager
def draft_store(folder: Path, manifest: snapshot_pb2.Manifest) -> Iterator[Path]:
    """Yields a temporary store that serves unpublished files of a snapshot.

    The files are linked, not copied; the folder stays unchanged.

    Args:
        folder: Contains the files that the manifest lists; a manifest in it is ignored.
        manifest: Manifest of the snapshot.
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
        promote(store, manifest, "draft, queried before it is published")
        yield Path(root)
