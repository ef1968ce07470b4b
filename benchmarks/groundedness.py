"""Measures the groundedness checks on claims whose evidence people labelled.

A claim of SciFact is checked against its labelled sentences (SUPPORT, CONTRADICT), or, if a cited
abstract says nothing about it, against the two sentences of the abstract with the most similar
wording. Claims are paraphrases by people, so rules that are right for a model's text refuse many
true ones. Verbatim sentences of abstracts stand in for a model that keeps to the text: each is
checked against its own abstract, against the abstract without that sentence, and against a
different abstract.
Prints one JSON object for each split, and one for these sentences.
Run: python -m benchmarks.groundedness --data SCIFACT
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generation.checks.groundedness import (
    Groundedness,
    GroundednessRules,
    best_passages,
    check_groundedness,
)
from generation.evidence.sources import Passage
from generation.training.eval_metrics import auroc
from generation.training.labelled_claims import LABELS, load_labelled_claims

RULES = {
    "number or date": ("number", "date"),
    "unit": ("unit",),
    "name": ("name",),
    "negation": ("negation",),
    "direction": ("direction",),
}
# Rules measured only on claims to which they apply.
OFTEN_ABSENT = ("number or date", "name")
FLOORS = (0.2, 0.3, 0.4, 0.5)
_LENIENT = GroundednessRules(floor=0.0)
_ABSTRACTS = 100


def _abstracts(data: Path) -> dict[str, dict[str, Any]]:
    lines = (data / "abstracts.jsonl").read_text("utf-8").splitlines()
    return {one["doc_id"]: one for one in map(json.loads, lines)}


def _broken(found: Groundedness, starts: Sequence[str]) -> bool:
    return any(problem.startswith(tuple(starts)) for problem in found.problems)


def _located(data: Path, split: str) -> float:
    """Returns how often the chosen passages of a supporting abstract contain labelled evidence."""
    abstracts = _abstracts(data)
    hits = []
    for line in (data / f"claims_{split}.jsonl").read_text("utf-8").splitlines():
        claim: dict[str, Any] = json.loads(line)
        for id, gold in claim["evidence"].items():
            sentences = abstracts[id]["sentences"]
            passages = _passages(sentences)
            chosen = best_passages(claim["text"], passages, title=abstracts[id]["title"])
            rows = {row for one in gold for row in one["sentences"]}
            hits.append(any(passage.start in rows for passage in chosen))
    return float(np.mean(hits))


def _passages(sentences: Sequence[str]) -> list[Passage]:
    return [Passage(0, 0, at, at + 1, text) for at, text in enumerate(sentences)]


def _supported(sentence: str, sentences: Sequence[str], title: str) -> bool:
    chosen = best_passages(sentence, _passages(sentences), title=title)
    return check_groundedness(sentence, " ".join(one.text for one in chosen), title=title).supported


def verbatim(data: Path) -> dict[str, Any]:
    """Returns the share of sentences of the first abstracts that pass, under the default rules."""
    abstracts = list(_abstracts(data).values())[:_ABSTRACTS]
    passed: dict[str, list[bool]] = {"own": [], "own without it": [], "another": []}
    for at, one in enumerate(abstracts):
        sentences, title, other = one["sentences"], one["title"], abstracts[at - 1]
        for row, sentence in enumerate(sentences):
            rest = sentences[:row] + sentences[row + 1 :] or [""]
            passed["own"].append(_supported(sentence, sentences, title))
            passed["own without it"].append(_supported(sentence, rest, title))
            passed["another"].append(_supported(sentence, other["sentences"], other["title"]))
    shares = {name: round(float(np.mean(each)), 3) for name, each in passed.items()}
    return {"sentences": len(passed["own"]), "passed_verbatim": shares}


def measure(data: Path, split: str) -> dict[str, Any]:
    """Returns the figures of a split."""
    found: dict[str, list[Groundedness]] = {label: [] for label in LABELS}
    alone: dict[str, list[Groundedness]] = {label: [] for label in LABELS}
    claims = load_labelled_claims(data, split)
    for one in claims:
        found[one.label].append(
            check_groundedness(one.statement, one.source, title=one.title, rules=_LENIENT)
        )
        # Checked against an empty text, this shows whether the claim has a number or a name.
        alone[one.label].append(check_groundedness(one.statement, "", rules=_LENIENT))
    scores = {label: np.array([one.score for one in each]) for label, each in found.items()}
    passed = {
        name: {
            label: _share(
                not _broken(one, starts)
                for one, bare in zip(found[label], alone[label], strict=True)
                if name not in OFTEN_ABSENT or _broken(bare, starts)
            )
            for label in LABELS
        }
        for name, starts in RULES.items()
    }
    return {
        "split": split,
        "pairs": {label: len(each) for label, each in found.items()},
        "score_auroc_support_none": round(auroc(scores["SUPPORT"], scores["NONE"]), 3),
        "score_auroc_support_contradict": round(auroc(scores["SUPPORT"], scores["CONTRADICT"]), 3),
        "passed": passed,
        "passed_by_floor": {
            str(floor): {
                label: round(float((scores[label] >= floor).mean()), 3) for label in LABELS
            }
            for floor in FLOORS
        },
        "passed_all_by_floor": {
            f"{floor} {'with' if names else 'without'} names": {
                label: _share(_passes(one, floor, names) for one in found[label])
                for label in LABELS
            }
            for floor in (0.2, 0.4)
            for names in (True, False)
        },
        "chosen_passages_hold_evidence": round(_located(data, split), 3),
    }


def _share(passed: Iterable[bool]) -> float:
    return round(float(np.mean(list(passed))), 3)


def _passes(found: Groundedness, floor: float, names: bool) -> bool:
    rest = [one for one in found.problems if names or not one.startswith("name")]
    return not rest and found.score >= floor


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    for split in ("train", "dev"):
        print(json.dumps(measure(data, split)))
    print(json.dumps(verbatim(data)))


if __name__ == "__main__":
    main()
