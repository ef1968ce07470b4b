"""Fits the default answer models on labelled questions, and prints them as a module.

The position in a document and English words of papers are omitted because they depend on the
genre, and the ratio of scores because its scale depends on the retriever. The thresholds are
lenient, because probabilities are lower on other collections than on the training data.
Run: python -m benchmarks.answer_defaults --data SELQA --license "Apache License 2.0" \\
    --store STORE --also benchmarks/data/near_topic STORE_2 --also HOW_TO STORE_3 \\
    > generation/evidence/defaults.py
where STORE was built by: nearline build --corpus SELQA/corpus.jsonl --shards 4 --store STORE
the others likewise, of one shard, and HOW_TO by: python -m benchmarks.how_to_questions --out HOW_TO
The licence of the labels must permit that what was learned from them is shipped.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from generation.evidence.calibration import Calibration
from generation.evidence.logistic import LogisticModel
from generation.evidence.sentence_features import CONTENT, JUDGED
from generation.training import labels
from generation.training.calibrator import EVIDENCE, feature_matrix, fit, fit_calibration
from generation.training.dataset import DatasetBuilder, QuestionExample
from nearline.clients import EmbeddingClient, RetrievalClient
from nearline.contract import DEFAULT_COLLECTION
from nearline.store.snapshot import Store
from nearline_cli.local.processes import embedding_process, retrieval_process

_DIGITS = 4
_OMITTED = ("document_ratio", "finding", "purpose")
_BY_JUDGE = ("judge_best", "judge_second", "judge_kind", "judge_coverage", "names_missing")
# With the judge, few signals decide on NO_EVIDENCE. Gaps between documents say that the right one
# was found, and outvote the judge if it was and lacks the answer.
_JUDGED_EVIDENCE = (
    *_BY_JUDGE,
    *("sentence_cosine", "coverage_first", "grams_best", "asks_method"),
    *("sentence_coverage", "dense_best", "words"),
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
# (cross-validated). The last is the lowest, in steps of 0.02, at which 0.85 of the unanswerable
# questions of benchmarks/data/near_topic (train) are refused. The judged model of NO_EVIDENCE was
# learned from these, too, and from benchmarks/data/how_to (train).
TOPIC_THRESHOLD = {topic}
EVIDENCE_THRESHOLD = {evidence}
JUDGED_EVIDENCE_THRESHOLD = {judged}
"""


async def _observe(
    data: Path, split: str, store: Path, embedding: str, *, hide: bool, judged: bool = True
) -> list[QuestionExample]:
    """Returns the labelled questions of a split, as the services of a store answer them."""
    opened = Store.open(str(store))
    alias = opened.alias_in_force(DEFAULT_COLLECTION)
    manifest = opened.manifest(DEFAULT_COLLECTION, alias.current)
    async with (
        retrieval_process(store, embedding=embedding) as router,
        RetrievalClient(router.address) as retriever,
        EmbeddingClient(embedding) as embedder,
    ):
        dataset = DatasetBuilder(
            retriever, embedder, documents=int(manifest.documents), judged=judged
        )
        return await dataset.observe(labels.load_labels(data, split), hide=hide)


async def _learn(options: argparse.Namespace) -> list[Calibration]:
    """Returns the calibrations without and with the judge."""
    async with embedding_process() as embedding:
        labelled = Path(options.data), options.split, Path(options.store), embedding.address
        unjudged = await _observe(*labelled, hide=True, judged=False)
        observed = await _observe(*labelled, hide=True)
        more = list(observed)
        for data, store in options.also:
            more += await _observe(Path(data), "train", Path(store), embedding.address, hide=False)
    plain, judged = (
        fit_calibration(
            examples,
            target_risk=options.target_risk,
            lost=options.lost,
            sentence_features=[name for name in (*CONTENT, *features) if name not in _OMITTED],
            evidence_signals=signals,
        )
        for examples, features, signals in (
            (unjudged, (), [one for one in EVIDENCE if one not in _BY_JUDGE]),
            (observed, JUDGED, _JUDGED_EVIDENCE),
        )
    )
    evidence = fit(
        feature_matrix([one.signals for one in more], _JUDGED_EVIDENCE),
        np.array([one.question.has_answer for one in more], np.bool_),
        _JUDGED_EVIDENCE,
    )
    return [plain, replace(judged, evidence=evidence)]


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
    parser.add_argument(
        "--also",
        nargs=2,
        action="append",
        default=[],
        metavar=("DATA", "STORE"),
        help="More questions for the judged model of NO_EVIDENCE.",
    )
    parser.add_argument("--judged-threshold", type=float, default=0.62)
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
