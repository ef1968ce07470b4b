"""Fits the default answer models on labelled questions, and prints them as a module.

The position in a document and English words of papers are omitted because they depend on the
genre, and the ratio of scores because its scale depends on the retriever. The thresholds are
lenient, because probabilities are lower on other collections than on the training data.
Run: python -m benchmarks.answer_defaults --data SELQA --license "Apache License 2.0" \\
    --store STORE > generation/evidence/defaults.py
where STORE was built by: nearline build --corpus SELQA/corpus.jsonl --shards 4 --store STORE
The licence of the labels must permit that what was learned from them is shipped.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from generation.evidence.calibration import Calibration
from generation.evidence.logistic import LogisticModel
from generation.evidence.sentence_features import CONTENT, JUDGED
from generation.training import labels
from generation.training.calibrator import EVIDENCE, fit_calibration
from generation.training.dataset import DatasetBuilder
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import DEFAULT_COLLECTION
from nearline.store.snapshot import Store
from nearline_cli.local.processes import embedding_process, retrieval_process

_DIGITS = 4
_OMITTED = ("document_ratio", "finding", "purpose")
_BY_JUDGE = ("judge_best", "judge_second", "judge_kind", "judge_coverage", "names_missing")
# With the judge, few signals decide on NO_EVIDENCE. The others say whether the right document was
# found, and outvote the judge if it was and lacks the answer. On benchmarks/data/near_topic
# (train), the AUROC is 0.947 with these and 0.927 with all signals.
_JUDGED_EVIDENCE = (
    *("judge_best", "judge_second", "judge_kind", "judge_coverage", "names_missing"),
    *("sentence_cosine", "coverage_first", "grams_best"),
)
_HEAD = '''"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answer_defaults, which prints this file.
Learned from {about}
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

'''
_FOOT = """\
# Questions with lower probabilities are refused. The first threshold refuses {lost} of the training
# questions. With the second, {coverage} are answered, {risk} of these without evidence
# (cross-validated). The last was chosen on benchmarks/data/near_topic (train), of whose answerable
# questions it keeps 0.90, and of whose unanswerable ones it refuses 0.87.
TOPIC_THRESHOLD = {topic}
EVIDENCE_THRESHOLD = {evidence}
JUDGED_EVIDENCE_THRESHOLD = {judged}
"""


async def _learn(options: argparse.Namespace) -> list[Calibration]:
    """Returns the calibrations without and with the judge."""
    store = Store.open(options.store)
    manifest = store.manifest(DEFAULT_COLLECTION, store.alias_in_force(DEFAULT_COLLECTION).current)
    async with (
        embedding_process() as embedding,
        retrieval_process(Path(options.store), embedding=embedding.address) as router,
        RetrievalClient(router.address) as retriever,
        EmbeddingClient(embedding.address) as embedder,
    ):
        dataset = DatasetBuilder(retriever, embedder, documents=int(manifest.documents))
        questions = labels.load_labels(Path(options.data), options.split)
        observed = await dataset.observe(questions, hide=True)
    return [
        fit_calibration(
            observed,
            target_risk=options.target_risk,
            lost=options.lost,
            sentence_features=[name for name in (*CONTENT, *judged) if name not in _OMITTED],
            evidence_signals=(
                _JUDGED_EVIDENCE if judged else [one for one in EVIDENCE if one not in _BY_JUDGE]
            ),
        )
        for judged in ((), JUDGED)
    ]


def _source(name: str, model: LogisticModel) -> str:
    rows = []
    for feature, numbers in model.terms().items():
        # Adding 0 makes -0.0 a plain 0.0.
        shown = ", ".join(str(round(number, _DIGITS) + 0.0) for number in numbers)
        rows.append(f'    "{feature}": ({shown}),\n')
    head = f"{name}_BIAS = {round(model.bias, _DIGITS)}\n{name}: Terms = {{\n"
    return f"{head}{''.join(rows)}}}\n"


def main() -> None:
    """Fits the models and prints them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="Folder with labels.")
    parser.add_argument("--license", required=True, help="Licence of the labels.")
    parser.add_argument("--store", required=True, help="Store of its corpus.")
    parser.add_argument("--split", default="train")
    parser.add_argument("--target-risk", type=float, default=0.1)
    parser.add_argument("--judged-threshold", type=float, default=0.84)
    parser.add_argument("--lost", type=float, default=0.0625)
    options = parser.parse_args()
    learned, judged = asyncio.run(_learn(options))
    summary, with_judge = learned.learned, judged.learned
    assert summary is not None and with_judge is not None
    about = (
        f"{summary.questions} questions of {Path(options.data).name} {options.split} "
        f"({options.license}), {summary.answerable} with evidence;\ncross-validated AUROC "
        f"{summary.topic_auroc:.3f} (topic), {summary.evidence_auroc:.3f} (evidence), "
        f"{with_judge.evidence_auroc:.3f} (with the judge)."
    )
    print(_HEAD.format(about=about), end="")
    print(_source("SENTENCES", learned.sentences), end="")
    print(_source("TOPIC", learned.topic), end="")
    print(_source("EVIDENCE", learned.evidence), end="")
    print(_source("JUDGED_SENTENCES", judged.sentences), end="")
    print(_source("JUDGED_EVIDENCE", judged.evidence), end="")
    print(
        _FOOT.format(
            lost=f"{options.lost:.0%}",
            risk=f"{summary.risk:.0%}",
            coverage=f"{summary.coverage:.0%}",
            topic=round(learned.topic_threshold, 2),
            evidence=round(learned.evidence_threshold, 2),
            judged=options.judged_threshold,
        ),
        end="",
    )


if __name__ == "__main__":
    main()
