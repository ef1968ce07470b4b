"""Trains the judge of answers, and writes embedding/judges/answer_judge.safetensors.

Low-rank changes of the upper four layers of all-MiniLM-L6-v2 are learned with a head over its first
token, from two sources:
- SelQA: a question is paired with its labelled sentences, with others of their section (the nearest
  by words, and one at random), and with sentences of other sections (of the same article, the
  nearest, and one at random). Articles of `--held-out` are left out. Two kinds of pairs are near
  and wrong: an answer without what was asked for, and a question with a name or number changed.
- benchmarks/data/answer_judge: 648 questions of our own about 36 paragraphs, 396 of which are near
  the paragraph and unanswerable. They count twice.
Run: python -m benchmarks.train_answer_judge --questions selqa-ass-test.json \\
    --others selqa-ass-dev.json --held-out questions_test.jsonl --out FILE
with the files of SelQA (Jurczyk, Zhai, Choi 2016), Apache License 2.0. `--start FILE` goes on from
an earlier judge. The shipped file was made by earlier forms of this script: two passes over SelQA
alone, then 80 steps with the blanked and changed pairs, then 202 steps with everything, 9 questions
each. These also had 300 of the changed questions and of "How much does TITLE cost?" and the like,
and took wrong sentences that the first judge ranked highest instead of those nearest by words.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn

from embedding.bert_weights import read_tensors
from embedding.judges.answer_judge import answer_input
from embedding.judges.low_rank import JudgeInput
from embedding.judges.low_rank_model import LowRankModel, save_change
from embedding.model import DEFAULT_MODEL, find_model
from generation.evidence.answer_kinds import answer_pattern
from nearline.sentences import sentences

_RANK, _SCALE = 8, 2.0
_QUESTIONS_AT_ONCE, _RATE, _WARM_UP = 9, 6e-4, 20
# Share of the questions that are repeated with a name or number changed.
_CHANGED = 0.3
_OWN = Path(__file__).parent / "data" / "answer_judge"
# A name inside a question, or a number.
_NAMED = re.compile(r"(?<=\s)[A-Z][\w'-]+(?: [A-Z][\w'-]+)*|\b\d{2,4}\b")


class Group(NamedTuple):
    """The token ids of a question with each sentence, and which of them answer it."""

    pairs: list[np.ndarray[Any, np.dtype[np.int64]]]
    answers: list[bool]


def read_groups(options: argparse.Namespace, encoder: JudgeInput) -> list[Group]:
    """Returns the training pairs, by question."""

    def key(text: str) -> str:
        return "".join(sign for sign in text.lower() if sign.isalnum())

    rows = json.loads(options.questions.read_text("utf-8"))
    others = json.loads(options.others.read_text("utf-8"))
    lines = options.held_out.read_text("utf-8").splitlines()
    held_out = {key(json.loads(line)["text"]) for line in lines}
    barred = {row["article"] for row in others if key(row["question"]) in held_out}
    asked = {key(row["question"]) for row in others}
    sections: dict[tuple[str, str], list[str]] = {}
    for row in (*rows, *others):
        if row["article"] not in barred:
            sections.setdefault((row["article"], row["section"]), row["candidates"])
    owners = [name for name, texts in sections.items() for _ in texts]
    texts = [text for found in sections.values() for text in found]
    words = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    table = words.fit_transform(
        [": ".join((*owner, text)) for owner, text in zip(owners, texts, strict=True)]
    )
    groups = []
    for row in rows:
        name = (row["article"], row["section"])
        if sections.get(name) != row["candidates"] or key(row["question"]) in asked:
            continue
        near = (table @ words.transform([row["question"]]).T).toarray()[:, 0]
        own = [at for at, owner in enumerate(owners) if owner == name]
        answers = [own[at] for at in row["answers"]]
        rest = sorted((at for at in own if at not in answers), key=lambda at: -near[at])
        away = [at for at in np.argsort(-near)[:60].tolist() if owners[at] != name]
        same = [at for at in away if owners[at][0] == name[0]]
        far = [at for at in away if owners[at][0] != name[0]]
        wrong = [*rest[:3], *random.sample(rest[3:], min(1, len(rest[3:])))]
        wrong += [*same[:1], *far[:2], random.choice(away[10:])]
        title = ": ".join(name)
        pairs = [(title, texts[at], True) for at in answers[:2]]
        pairs += [(": ".join(owners[at]), texts[at], False) for at in dict.fromkeys(wrong)]
        blanked = blank_answer(row["question"], texts[answers[0]])
        if blanked:
            pairs.append((title, blanked, False))
        groups.append(to_group(encoder, row["question"], pairs))
        changed = change_name(row["question"], [other["question"] for other in rows])
        if changed and random.random() < _CHANGED:
            near_by = [(title, texts[at], False) for at in (*answers[:1], *rest[:2])]
            groups.append(to_group(encoder, changed, near_by))
    return groups


def read_own_groups(folder: Path, encoder: JudgeInput) -> list[Group]:
    """Returns the pairs of our own questions with the sentences of their paragraphs."""
    lines = (folder / "corpus.jsonl").read_text("utf-8").splitlines()
    documents = {row["_id"]: row for row in map(json.loads, lines)}
    groups = []
    for line in (folder / "questions_train.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        document = documents[row["doc_id"]]
        answers = {answer["text"] for answer in row["answers"]}
        parts = [document["text"][start:end] for start, end in sentences(document["text"])]
        asked = set(row["text"].lower().split())
        rest = [part for part in parts if part not in answers]
        rest.sort(key=lambda part: -len(asked & set(part.lower().split())))
        pairs = [(document["title"], part, True) for part in parts if part in answers]
        pairs += [(document["title"], part, False) for part in rest[: 4 - len(pairs)]]
        groups.append(to_group(encoder, row["text"], pairs))
    return groups


def to_group(encoder: JudgeInput, question: str, pairs: list[tuple[str, str, bool]]) -> Group:
    """Returns the group of a question with titles, sentences, and whether they answer it."""
    ids = [encoder.encode(question, f"{title}\n{text}") for title, text, _ in pairs]
    return Group(ids, [answers for *_, answers in pairs])


def blank_answer(question: str, sentence: str) -> str:
    """Returns a sentence without what is asked for; empty if it holds nothing of the kind."""
    answer = answer_pattern(question)
    if answer is None:
        return ""
    said = question.casefold()
    blanked = answer.sub(
        lambda found: found.group() if found.group().casefold() in said else "", sentence
    )
    return " ".join(blanked.split()) if blanked != sentence else ""


def change_name(question: str, others: list[str]) -> str:
    """Returns a question with one name or number replaced; empty if it has none."""
    named = list(_NAMED.finditer(question))
    if not named:
        return ""
    found = random.choice(named)
    if found.group().isdigit():
        other = str(int(found.group()) + random.choice((-7, -3, -2, -1, 1, 2, 3, 6, 10)))
    else:
        names = [name for text in random.sample(others, 20) for name in _NAMED.findall(text)]
        other = next((name for name in names if not name.isdigit() and name not in question), "")
    return other and question[: found.start()] + other + question[found.end() :]


def loss_of(logits: torch.Tensor, groups: list[Group]) -> torch.Tensor:
    """Returns the loss: of each pair, and of the answers among the sentences of their question."""
    labels = torch.tensor([float(one) for group in groups for one in group.answers])
    each = nn.functional.binary_cross_entropy_with_logits(logits, labels, weight=1 + 2 * labels)
    sizes = [len(group.answers) for group in groups]
    among = [
        -torch.logsumexp(part.log_softmax(0)[told > 0], 0)
        for part, told in zip(torch.split(logits, sizes), torch.split(labels, sizes), strict=True)
        if told.any()
    ]
    return each + 0.5 * sum(among, torch.zeros(())) / len(groups)


def main() -> None:
    """Trains and writes."""
    parser = argparse.ArgumentParser()
    for name in ("--questions", "--others", "--held-out", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--own", type=Path, default=_OWN)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--passes", type=float, default=2.0)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = find_model(DEFAULT_MODEL, cache_folder=options.out.absolute().parent).folder
    encoder = answer_input(folder)
    judge = LowRankModel(folder, outputs=1, rank=_RANK, scale=_SCALE)
    if options.start is not None:
        judge.start(read_tensors([options.start]))
    groups = [*read_groups(options, encoder), *2 * read_own_groups(options.own, encoder)]
    learned = [part for part in judge.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=_RATE, weight_decay=0.01)
    steps = int(options.passes * len(groups) / _QUESTIONS_AT_ONCE)
    for step in range(steps):
        rate = _RATE * min(1.0, (step + 1) / _WARM_UP) * max(0.02, 1 - step / steps)
        for part in optimizer.param_groups:
            part["lr"] = rate
        taken = random.sample(groups, _QUESTIONS_AT_ONCE)
        loss = loss_of(judge([pair for group in taken for pair in group.pairs])[:, 0], taken)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    learned_from = "SelQA and questions of Nearline's own (both Apache License 2.0)"
    save_change(judge.change(), options.out, learned_from)


if __name__ == "__main__":
    main()
