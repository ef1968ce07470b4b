"""Fits the shipped models of answers on labelled questions, and prints `generation/defaults.py`.

Position in a document is left out, since it is a habit of one kind of prose, and so is the ratio of
scores, whose scale belongs to one retriever. The thresholds are lenient: on another collection
probabilities are lower than where they were learned.
Run: python -m benchmarks.answer_defaults --data SCIFACT --store STORE > generation/defaults.py
where STORE was made by: nearline build --corpus SCIFACT/corpus.jsonl --shards 4 --store STORE
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from generation.evidence.calibration import Calibration
from generation.evidence.logistic import LogisticModel
from generation.evidence.sentence_features import CONTENT
from generation.training import labels
from generation.training.calibrator import fit_calibration
from generation.training.dataset import DatasetBuilder
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import DEFAULT_COLLECTION
from nearline.snapshot import Store
from nearline_cli.local.processes import embedding_process, retrieval_process

_DIGITS = 4
_HEAD = '''"""The shipped models of answers: not calibrated on anybody's own collection.

Source: python -m benchmarks.answer_defaults, which prints this file.
Learned from {about}
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

'''
_FOOT = """\
# Below these an answer is refused. The first loses {lost} of the questions learned from; at the
# second {coverage} are answered, {risk} of these without evidence (cross-validated).
TOPIC_THRESHOLD = {topic}
EVIDENCE_THRESHOLD = {evidence}
"""


async def _learn(given: argparse.Namespace) -> Calibration:
    store = Store.open(given.store)
    manifest = store.manifest(DEFAULT_COLLECTION, store.alias_in_force(DEFAULT_COLLECTION).current)
    async with (
        embedding_process() as embedding,
        retrieval_process(Path(given.store), embedding=embedding.address) as router,
        RetrievalClient(router.address) as retriever,
        EmbeddingClient(embedding.address) as embedder,
    ):
        observer = DatasetBuilder(retriever, embedder, documents=int(manifest.documents))
        questions = labels.load_labels(Path(given.data), given.split)
        observed = await observer.observe(questions, hide=True)
    return fit_calibration(
        observed,
        target_risk=given.target_risk,
        lost=given.lost,
        sentence_features=[name for name in CONTENT if name != "document_ratio"],
    )


def _printed(name: str, model: LogisticModel) -> str:
    rows = []
    for feature, numbers in model.terms().items():
        # Adding 0 makes -0.0 a plain 0.0.
        shown = ", ".join(str(round(number, _DIGITS) + 0.0) for number in numbers)
        rows.append(f'    "{feature}": ({shown}),\n')
    head = f"{name}_BIAS = {round(model.bias, _DIGITS)}\n{name}: Terms = {{\n"
    return f"{head}{''.join(rows)}}}\n"


def main() -> None:
    """Fits and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="folder with labels")
    parser.add_argument("--store", required=True, help="store of its corpus")
    parser.add_argument("--split", default="train")
    parser.add_argument("--target-risk", type=float, default=0.3)
    parser.add_argument("--lost", type=float, default=0.01)
    given = parser.parse_args()
    learned = asyncio.run(_learn(given))
    told = learned.learned
    assert told is not None
    about = (
        f"{told.questions} questions of {Path(given.data).name} {given.split}, {told.answerable} "
        f"with evidence;\ncross-validated AUROC {told.topic_auroc:.3f} (topic), "
        f"{told.evidence_auroc:.3f} (evidence)."
    )
    print(_HEAD.format(about=about), end="")
    print(_printed("SENTENCES", learned.sentences), end="")
    print(_printed("TOPIC", learned.topic), end="")
    print(_printed("EVIDENCE", learned.evidence), end="")
    print(
        _FOOT.format(
            lost=f"{given.lost:.0%}",
            risk=f"{told.risk:.0%}",
            coverage=f"{told.coverage:.0%}",
            topic=round(learned.topic_threshold, 2),
            evidence=round(learned.evidence_threshold, 2),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
