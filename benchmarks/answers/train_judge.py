"""Trains the judge of answers, and writes embedding/judges/answer_judge.safetensors.

A low-rank change of all layers of all-MiniLM-L6-v2 is learned with a head over its first token. The
pairs are questions with texts below their titles and headings, of two kinds:
- `--public`: JSON lines of public data, see `read_public`. The units of a passage are paired with
  its question, those with the most words of it and one at random, and the nearest ones of others.
- `--candidates`: lines of `benchmarks.answers.candidates`: the units that the service finds.
Run: python -m benchmarks.answers.train_judge --public DIR --out base.safetensors
     python -m benchmarks.answers.train_judge --start base.safetensors --candidates FILE … \\
         --public DIR --share 0.35 --out FILE [--leave-out NAME …]
The shipped file is the mean (`average_judges`) of three judges that other forms of this script made
from one or two such bases, two of them with dropout, in 80 minutes on two busy cores; see
docs/quality.md for the data.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn

from embedding.bert_weights import read_tensors
from embedding.judges.answer_judge import answer_input
from embedding.judges.low_rank_model import LowRankModel, save_change
from embedding.model import DEFAULT_MODEL, find_model
from generation.evidence.answer_units import context_of, list_units
from generation.evidence.sources import group_sources
from nearline.contract import Hit

_RANK, _SCALE, _FROZEN_LAYERS = 32, 2.0, 0
_RATE, _WARM_UP, _TOKENS_AT_ONCE = 5e-4, 30, 4_000
_WORD = re.compile(r"\w+")
_NO_CONTEXT = 0.1  # Share of the questions whose texts lose title and headings.


class LabelledText(NamedTuple):
    """A text below its context, and whether it answers."""

    context: str
    text: str
    answers: bool


class Group(NamedTuple):
    """A question with texts."""

    question: str
    pairs: list[LabelledText]


def read_candidates(path: Path, leave_out: frozenset[str]) -> Iterator[Group]:
    """Yields the groups of recorded questions, without the test parts and the sets named."""
    for row in map(json.loads, path.read_text("utf-8").splitlines()):
        if row["set"] in leave_out or row["set"].endswith("-test") or row["kind"] == "manuals":
            continue
        units = {(unit["context"], unit["text"]): unit for unit in row["units"]}
        best = sorted(units.values(), key=lambda unit: -unit["by_words"])
        right = [unit for unit in best if unit["gold"]]
        # A unit that holds the passage and the value of another entry is neither right nor wrong.
        wrong = [unit for unit in best if not unit["near"]]
        if row["answerable"] and not right:
            continue
        hard = 2 if row["off_topic"] else 7
        taken = [*wrong[:hard], *random.sample(wrong[hard:40], min(1, len(wrong[hard:40])))]
        pairs = [LabelledText(unit["context"], unit["text"], True) for unit in right[:3]]
        pairs += [LabelledText(unit["context"], unit["text"], False) for unit in taken]
        yield Group(row["question"], pairs)


def read_public(path: Path, most: int) -> Iterator[Group]:
    """Yields the groups of public questions.

    Args:
        path: JSON lines with question, title, heading, text, short (answer), answerable, and
            answers: start and end of each sentence of the text that answers.
        most: Number of questions, at random.
    """
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows = random.sample(rows, min(most, len(rows)))
    passages = {(row["title"], row["text"]): _units(row) for row in rows}
    if not passages:
        return
    keys = list(passages)
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    table = words.fit_transform([" ".join(key) for key in keys])
    for row in rows:
        own = (row["title"], row["text"])
        units = passages[own]
        right = [at for at, unit in enumerate(units) if _answers(unit[1], row["answers"])]
        if bool(right) != bool(row["answerable"]):
            continue
        asked = set(_WORD.findall(row["question"].lower()))
        wrong = sorted(
            (unit[0] for at, unit in enumerate(units) if at not in right),
            key=lambda one: -len(asked & set(_WORD.findall(one.text.lower()))),
        )
        near = (table @ words.transform([row["question"]]).T).toarray()[:, 0]
        others = [keys[at] for at in np.argsort(-near)[:6].tolist() if keys[at] != own]
        short = row["short"].lower()
        beyond = [
            unit[0]
            for key in others
            for unit in passages[key][:1]
            if not short or short not in unit[0].text.lower()
        ]
        picked = random.sample(right, min(2, len(right)))
        pairs = [units[at][0]._replace(answers=True) for at in picked]
        pairs += [*wrong[:2], *random.sample(wrong[2:], min(1, len(wrong[2:])))]
        pairs += beyond[: 1 if right else 2]
        yield Group(row["question"], pairs)


def _units(row: dict[str, Any]) -> list[tuple[LabelledText, list[tuple[int, int]]]]:
    section = (f"## {row['heading']}",) if row["heading"] else ()
    hit = Hit(id="1", score=1.0, title=row["title"], text=row["text"], section=section)
    sources = group_sources([hit], 1)
    return [
        (
            LabelledText(context_of(sources[0], unit), unit.text, False),
            [(part.start, part.end) for part in unit.passages],
        )
        for unit in list_units(sources)
    ]


def _answers(parts: list[tuple[int, int]], answers: list[list[int]]) -> bool:
    """Returns whether the parts of a unit hold most of an answer."""
    return any(
        sum(max(0, min(end, last) - max(start, first)) for first, last in parts)
        > 0.6 * (end - start)
        for start, end in answers
    )


def vary(group: Group) -> Group:
    """Returns a group as people also ask: in lower case, without its mark, with a typo."""
    question, drawn = group.question, random.random()
    if drawn < 0.06:
        question = question.lower()
    if drawn < 0.12:
        question = question.rstrip("?")
    elif drawn < 0.16 and len(question) > 12:
        at = random.randrange(3, len(question) - 3)
        question = question[:at] + question[at + 1] + question[at] + question[at + 2 :]
    elif drawn < 0.18:
        question = question.upper()
    pairs = group.pairs
    if random.random() < _NO_CONTEXT:
        pairs = [pair._replace(context="") for pair in pairs]
    return Group(question, pairs)


def loss_of(logits: torch.Tensor, groups: list[Group]) -> torch.Tensor:
    """Returns the loss: of each pair, and of the answers among the texts of their question."""
    labels = torch.tensor([float(pair.answers) for group in groups for pair in group.pairs])
    each = nn.functional.binary_cross_entropy_with_logits(logits, labels, weight=1 + 2 * labels)
    sizes = [len(group.pairs) for group in groups]
    among = [
        -torch.logsumexp(part.log_softmax(0)[told > 0], 0)
        for part, told in zip(torch.split(logits, sizes), torch.split(labels, sizes), strict=True)
        if told.any()
    ]
    return each + 0.5 * sum(among, torch.zeros(())) / len(groups)


def train(groups: list[Group], options: argparse.Namespace) -> None:
    """Trains for one pass, or as long as it may take, and writes the change."""
    folder = find_model(DEFAULT_MODEL, cache_folder=options.out.absolute().parent).folder
    encoder = answer_input(folder)
    model = LowRankModel(folder, outputs=1, rank=_RANK, scale=_SCALE, frozen_layers=_FROZEN_LAYERS)
    # With dropout: it learns our few folders by heart otherwise.
    model.bert.train()
    if options.start is not None:
        model.start(read_tensors([options.start]))
    learned = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=_RATE, weight_decay=0.01)
    start, step, done = time.monotonic(), 0, 0
    while done < len(groups) and time.monotonic() - start < options.max_s:
        taken: list[Group] = []
        pairs: list[NDArray[np.int64]] = []
        while done < len(groups) and sum(map(len, pairs)) < _TOKENS_AT_ONCE:
            group = vary(groups[done])
            taken.append(group)
            pairs += [
                encoder.encode(group.question, f"{pair.context}\n{pair.text}")
                for pair in group.pairs
            ]
            done += 1
        spent = max(done / len(groups), (time.monotonic() - start) / options.max_s)
        for part in optimizer.param_groups:
            part["lr"] = _RATE * min(1.0, (step + 1) / _WARM_UP) * max(0.02, 1 - spent)
        # Two batches by length, so that little is padded.
        order = sorted(range(len(pairs)), key=lambda at: len(pairs[at]))
        halves = [order[: len(order) // 2], order[len(order) // 2 :]]
        scores = torch.cat([model([pairs[at] for at in half])[:, 0] for half in halves if half])
        logits = scores[torch.tensor(np.argsort(order))]
        loss = loss_of(logits, taken)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            print(f"{done} of {len(groups)} questions: loss {loss.item():.3f}", flush=True)
    save_change(model.change(), options.out, options.learned_from)


def main() -> None:
    """Reads the options and the data, and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--public", type=Path, help="Folder of JSON lines.")
    parser.add_argument("--most", type=int, default=7_600, help="Questions of a public file.")
    parser.add_argument("--share", type=float, default=1.0, help="Share of the public questions.")
    parser.add_argument("--candidates", type=Path, nargs="*", default=[])
    parser.add_argument("--leave-out", nargs="*", default=[], help="Sets of the candidates.")
    parser.add_argument("--start", type=Path, help="Change to go on from.")
    parser.add_argument("--max-s", type=float, default=1_500.0)
    parser.add_argument("--learned-from", default="see docs/quality.md")
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    groups: list[Group] = []
    for path in sorted(options.public.glob("*.jsonl")) if options.public else ():
        found = list(read_public(path, options.most))
        groups += random.sample(found, int(options.share * len(found)))
    for path in options.candidates:
        groups += read_candidates(path, frozenset(options.leave_out))
    random.shuffle(groups)
    train(groups, options)


if __name__ == "__main__":
    main()
