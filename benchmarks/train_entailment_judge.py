"""Trains the judge of groundedness, and writes embedding/judges/entailment_judge.safetensors.

All labels are made by rule: `entailment.claim_grammar` tells facts in words of our own, and
`entailment.sentence_edits` shortens and changes sentences of SelQA's articles. Articles of
`--held-out` are left out.
Run: python -m benchmarks.train_entailment_judge --sections selqa-ass-test.json \\
    --sections selqa-ass-dev.json --held-out questions_test.jsonl --out FILE
with the files of SelQA (Jurczyk, Zhai, Choi 2016), Apache License 2.0. The shipped file was made
from the same kinds of pairs by an earlier form of this script, which started from the judge of
answers and saw 16,000 of them in two runs. The bias of its second output is then lowered by 0.643,
so that 0.95 of the supported sentences of held-out articles are not called contradicted.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from benchmarks.entailment.claim_grammar import CONTRADICTED, SUPPORTED, ClaimGrammar
from benchmarks.entailment.sentence_edits import SentenceEdits
from embedding.judges.low_rank_trainer import EntailmentModel, Example, predict, train
from embedding.model import DEFAULT_MODEL, find_model
from generation.training.eval_metrics import auroc

# Share of groups that the grammar makes; the others come from sentences.
_GRAMMAR = 0.55
_RATE = 1.5e-3
_CHECKED = 300


def read_sections(options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Returns titles and sentences, without those of articles with held-out questions."""

    def key(text: str) -> str:
        return "".join(sign for sign in text.lower() if sign.isalnum())

    rows = [row for path in options.sections for row in json.loads(path.read_text("utf-8"))]
    lines = options.held_out.read_text("utf-8").splitlines()
    held_out = {key(json.loads(line)["text"]) for line in lines}
    barred = {row["article"] for row in rows if key(row["question"]) in held_out}
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["article"] not in barred:
            found.setdefault((row["article"], row["section"]), row["candidates"])
    return [(f"{article}: {section}", texts) for (article, section), texts in found.items()]


def make_groups(
    sections: list[tuple[str, list[str]]], count: int, rng: random.Random
) -> list[list[Example]]:
    """Returns groups of examples; those of a group share their words."""
    edits = SentenceEdits(sections, rng)
    grammar = ClaimGrammar(rng, edits.names)
    groups: list[list[Example]] = []
    while len(groups) < count:
        if rng.random() < _GRAMMAR:
            title = rng.choice(sections)[0].partition(":")[0] if rng.random() < 0.25 else ""
            made = [(title, pair) for pair in grammar.pairs()]
        else:
            made = edits.pairs()
        if made:
            groups.append(
                [Example(pair.statement, title, pair.source, pair.label) for title, pair in made]
            )
    return groups


def main() -> None:
    """Trains and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sections", type=Path, action="append", required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=12_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    sections = read_sections(options)
    groups = make_groups(sections, options.groups, random.Random(7))
    model = EntailmentModel(
        find_model(DEFAULT_MODEL, cache_folder=options.out.absolute().parent).folder
    )
    start = shown = time.monotonic()

    def progress(share: float, loss: float) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(f"{share:.1%} in {shown - start:.0f} s: loss {loss:.3f}", flush=True)

    train(
        model,
        groups,
        passes=1.0,
        rate=_RATE,
        max_s=60 * options.minutes,
        progress=progress,
    )
    model.save(options.out, "statements of our own; sentences of SelQA (Apache License 2.0)")
    fresh = make_groups(sections, _CHECKED, random.Random(99))
    examples = [one for group in fresh for one in group]
    margins = predict(model, examples) @ [1.0, -1.0, 0.0]
    right = [at for at, one in enumerate(examples) if one.label == SUPPORTED]
    wrong = [at for at, one in enumerate(examples) if one.label == CONTRADICTED]
    print(f"AUROC supported against contradicted: {auroc(margins[right], margins[wrong]):.3f}")


if __name__ == "__main__":
    main()
