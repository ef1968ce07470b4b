"""Fits the default answer models on recorded questions of many collections, and prints a module.

    python -m benchmarks.answers.fit_defaults --judged FILE --unjudged FILE \\
        > generation/evidence/defaults.py

The files are written by `benchmarks.answers.candidates --strange 6`, with and without `--judged`,
with a judge that has not seen the judged collections. Positions in a document and English words of
papers are omitted because they depend on the genre.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from benchmarks.answers.question_sets import KnownQuestion
from generation.evidence.logistic import LogisticModel
from generation.evidence.sentence_features import FEATURES

# By words: which units the judge reads. Without it, cosines are known, too.
SHORTLIST = (
    *("coverage", "coverage_to_best", "coverage_beyond_title", "title_coverage", "grams"),
    *("chunk_rank", "document_rank", "numbers", "length"),
    *("names_missing", "identifiers_missing", "cosine", "cosine_standing"),
)
RANKING = ("answer", "coverage", "names_missing", "identifiers_missing")
TOPIC = ("dense_top", "sentence_coverage", "heaviest_held", "grams_best")
EVIDENCE = (
    *("dense_best", "dense_gap_2", "dense_gap_5", "sentence_cosine", "sentence_cosine_2"),
    *("coverage_first", "sentence_coverage", "grams_best", "words"),
)
# Others were tried, and none of them raises the AUROC on collections that were left out.
JUDGED_EVIDENCE = ("answer_best", "names_missing", "identifiers_missing")
# Shares of the unanswerable questions of folders that are answered, by strictness; and of the
# answerable ones that are refused.
_ANSWERED = {"strict": 0.05, "balanced": 0.15, "lenient": 0.25}
_REFUSED = 0.02
_LOST = 0.05  # Share of the questions that are on topic below the threshold of OFF_TOPIC.
_SHOWN = 0.02  # Share of the questions that are off topic to which passages are shown all the same.
_STRENGTH, _FOLDS, _DIGITS = 0.3, 6, 4
_HEAD = '''"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answers.fit_defaults, which prints this file.
Learned from {about}
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

'''


def read(path: Path, leave_out: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the recorded questions for which units were found, but for the sets to leave out."""
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return [
        row
        for row in rows
        if row["units"] and row["set"] not in leave_out and row["kind"] != "manuals"
    ]


def fit_units(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> LogisticModel:
    """Fits which units answer, on the questions that have one among them."""
    columns = [FEATURES.index(name) for name in names]
    table, target, weights = [], [], []
    for row in rows:
        gold = np.array([unit["gold"] for unit in row["units"]])
        near = np.array([unit["near"] for unit in row["units"]])
        if not gold.any():
            continue
        known = gold | ~near
        answer = np.array(row["features"], np.float64)[:, FEATURES.index("answer")]
        if np.isfinite(answer).any():
            # Those that the judge has not read have the logit of the worst that it has.
            known &= answer > np.nanmin(answer)
        found = np.array(row["features"], np.float64)[:, columns][known]
        table.append(found)
        target.append(gold[known])
        weights.append(np.full(len(found), 1 / len(found)))
    return fit(np.concatenate(table), np.concatenate(target), names, np.concatenate(weights))


def fit(
    rows: NDArray[np.float64],
    target: NDArray[np.bool_],
    names: Sequence[str],
    weights: NDArray[np.float64],
) -> LogisticModel:
    """Fits a logistic regression; NaN counts as the mean of its column."""
    rows = np.where(np.isfinite(rows), rows, np.nanmean(rows, axis=0))
    scaler = StandardScaler().fit(rows)
    model = LogisticRegression(C=_STRENGTH, max_iter=2_000)
    model.fit(scaler.transform(rows), target, sample_weight=weights / weights.mean())
    return LogisticModel(
        names=tuple(names),
        weights=model.coef_[0].astype(np.float64),
        means=scaler.mean_.astype(np.float64),
        scales=scaler.scale_.astype(np.float64),
        bias=float(model.intercept_[0]),
    )


def signals(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> NDArray[np.float64]:
    """Returns the signals of questions, (n, f)."""
    found = [[float(row["signals"][name]) for name in names] for row in rows]
    return np.array(found, np.float64).reshape(len(rows), len(names))


def weights_of(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Returns the weight of each question: of each collection alike, but for those of thousands."""
    counts = Counter((row["kind"], row["set"]) for row in rows)
    return np.array([1 / np.sqrt(counts[row["kind"], row["set"]]) for row in rows])


def cross_validated(
    rows: Sequence[Mapping[str, Any]], target: NDArray[np.bool_], names: Sequence[str]
) -> NDArray[np.float64]:
    """Returns the logit of each question by a model that was fitted without its collection."""
    table, weights = signals(rows, names), weights_of(rows)
    groups = [f"{row['kind']}/{row['set']}" for row in rows]
    logits = np.empty(len(rows))
    for learned, left in GroupKFold(_FOLDS).split(table, target, groups):
        model = fit(table[learned], target[learned], names, weights[learned])
        logits[left] = model.score(table[left], list(names))
    return logits


def best_is_right(row: Mapping[str, Any], ranking: LogisticModel) -> bool:
    """Returns whether the best unit of a question answers it."""
    scores = ranking.score(np.array(row["features"], np.float64), FEATURES)
    question = KnownQuestion(
        row["question"], tuple(row["passages"]), tuple(row["must"]), tuple(row["must_not"])
    )
    return question.is_answered_by(row["units"][int(scores.argmax())]["text"])


def report(
    rows: Sequence[Mapping[str, Any]], logits: NDArray[np.float64], right: NDArray[np.bool_]
) -> None:
    """Prints, for each kind, what thresholds do, on standard error."""
    for kind in sorted({row["kind"] for row in rows}):
        mine = np.array([row["kind"] == kind for row in rows])
        answerable = np.array([bool(row["answerable"]) for row in rows]) & mine
        others = mine & ~answerable
        strange = np.array([bool(row["off_topic"]) for row in rows]) & mine
        line = []
        for threshold in np.arange(-3.0, 3.01, 0.5).tolist():
            over = logits >= threshold
            line.append(
                f"{threshold:+.1f}: {(right & over)[answerable].mean():.3f}"
                f"/{over[others & ~strange].mean():.3f}/{over[strange].mean():.3f}"
            )
        print(kind, int(answerable.sum()), "right/near answered/strange", line, file=sys.stderr)


def source(name: str, model: LogisticModel) -> str:
    """Returns a model as lines of the module."""
    lines = []
    for feature, numbers in model.terms().items():
        # Adding 0 makes -0.0 a plain 0.0.
        shown = ", ".join(str(round(number, _DIGITS) + 0.0) for number in numbers)
        lines.append(f'    "{feature}": ({shown}),\n')
    return f"{name}_BIAS = {round(model.bias, _DIGITS)}\n{name}: Terms = {{\n{''.join(lines)}}}\n"


def probability(logit: float) -> float:
    """Returns the probability of a logit."""
    return float(1 / (1 + np.exp(-logit)))


def at_share(rows: Sequence[Mapping[str, Any]], logits: NDArray[np.float64], share: float) -> float:
    """Returns the logit at which a share of the unanswerable questions of folders is answered."""
    near = [
        logit
        for row, logit in zip(rows, logits, strict=True)
        if row["kind"] == "folder" and not row["answerable"] and not row["off_topic"]
    ]
    return float(np.quantile(near, 1 - share))


def main() -> None:
    """Fits the models and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judged", type=Path, required=True)
    parser.add_argument("--unjudged", type=Path, required=True)
    parser.add_argument(
        "--leave-out", nargs="*", default=[], help="Sets that the judge has learned from."
    )
    options = parser.parse_args()
    judged, unjudged = read(options.judged, options.leave_out), read(options.unjudged, ())
    models: dict[str, LogisticModel] = {}
    found: dict[str, float] = {}
    for name, rows, unit_names, evidence in (
        ("", unjudged, SHORTLIST, EVIDENCE),
        ("JUDGED_", judged, RANKING, JUDGED_EVIDENCE),
    ):
        target = np.array([bool(row["answerable"]) for row in rows])
        models[f"{name}SENTENCES"] = fit_units(rows, unit_names)
        models[f"{name}EVIDENCE"] = fit(signals(rows, evidence), target, evidence, weights_of(rows))
        logits = cross_validated(rows, target, evidence)
        right = np.array(
            [
                yes and best_is_right(row, models[f"{name}SENTENCES"])
                for yes, row in zip(target, rows, strict=True)
            ]
        )
        print(name or "without the judge", file=sys.stderr)
        report(rows, logits, right)
        balanced = at_share(rows, logits, _ANSWERED["balanced"])
        found[f"{name}EVIDENCE_THRESHOLD"] = probability(balanced)
        # The last ones are those with the judge.
        strictness = {
            word: round(at_share(rows, logits, share) - balanced, 2)
            for word, share in _ANSWERED.items()
        }
        not_sure = round(float(np.quantile(logits[target], _REFUSED)) - balanced, 2)
    strange = np.array([not row["off_topic"] for row in unjudged])
    models["TOPIC"] = fit(signals(unjudged, TOPIC), strange, TOPIC, weights_of(unjudged))
    topic = cross_validated(unjudged, strange, TOPIC)
    least = float(np.quantile(topic[strange], _LOST))
    found["TOPIC_THRESHOLD"] = probability(least)
    strangers = [
        logit if models["TOPIC"].probability(row["signals"]) < probability(least) else -np.inf
        for row, logit in zip(judged, logits, strict=True)
        if row["off_topic"]
    ]
    off_topic = round(float(np.quantile(strangers, 1 - _SHOWN, method="lower")) - balanced, 2)
    sets = {(row["kind"], row["set"]) for row in judged}
    about = f"{len(judged)} questions about {len(sets)} collections; see docs/quality.md."
    print(_HEAD.format(about=about), end="")
    for name, model in models.items():
        print(source(name, model), end="")
    print(
        "# Questions with lower probabilities are off topic, or not answered. At the others, "
        f"{_ANSWERED['balanced']:.0%} of\n# the unanswerable questions of our folders are answered "
        "(cross-validated by collection)."
    )
    for name, value in found.items():
        print(f"{name} = {round(value, 3)}")
    shown = ", ".join(f'"{word}": {value}' for word, value in strictness.items())
    print(
        "# What an answer needs beyond the threshold, in logits, by strictness; and from where on "
        f"the closest\n# passages are shown instead.\nSTRICTNESS_LOGITS = {{{shown}}}\n"
        f"NOT_SURE_LOGITS = {not_sure}\n# The same for questions that are off topic.\n"
        f"OFF_TOPIC_LOGITS = {off_topic}"
    )


if __name__ == "__main__":
    main()
