"""Tests of `nearline eval rag` and `nearline build --calibrate-on` on a tiny corpus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from nearline_cli.main import main
from tests.scale import nightly, scaled

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

NAMES = (
    "Arden Birch Cedar Dover Elgin Fenwick Garth Hollow Ivory Jasper Kelso Linden Marlow Norden "
    "Orwell Penrith Quarry Rowan Selby Thorne Upton Vernon Weston Yarrow Zennor Alder Bramble "
    "Corran Derwent Easton Farrow Glenda Harrow Inver Juniper Kestrel Larch Moor Nettle Osprey"
).split()
TRAIN, TEST = NAMES[:26], NAMES[26:]


def _sentences(name: str) -> list[str]:
    size = 60 + NAMES.index(name)
    return [
        f"The {name} kettle holds two litres of water.",
        f"Its cord is {size} centimetres long and leaves at the back.",
        f"Owners of the {name} should descale it with vinegar every month.",
        "A light shows while it is on.",
    ]


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _corpus(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {"_id": name, "title": f"{name} kettle", "text": " ".join(_sentences(name))}
        for name in NAMES
    ]
    _write(folder / "corpus.jsonl", rows)


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return [json.loads(line) for line in told.out.splitlines()]


def _claims(names: Sequence[str]) -> list[dict[str, object]]:
    held: list[dict[str, object]] = [
        {
            "query_id": f"{name} yes",
            "text": f"The {name} kettle should be descaled with vinegar.",
            "cited_doc_ids": [name],
            "evidence": {name: [{"label": "SUPPORT", "sentences": [2]}]},
        }
        for name in names
    ]
    lacking: list[dict[str, object]] = [
        {
            "query_id": f"{name} no",
            "text": f"The {name} grill roasts chestnuts by steam pressure.",
            "cited_doc_ids": [name],
            "evidence": {},
        }
        for name in names
    ]
    return [row for pair in zip(held, lacking, strict=True) for row in pair]


@nightly
def test_sentence_labels_calibrate_and_are_measured_by_real_services(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, beside = tmp_path / "kettles", tmp_path / "poems"
    data.mkdir()
    beside.mkdir()
    _corpus(data)
    abstracts: list[dict[str, object]] = [
        {"doc_id": name, "sentences": _sentences(name)} for name in NAMES
    ]
    _write(data / "abstracts.jsonl", abstracts)
    # Two train documents are those of test claims, too.
    _write(data / "claims_train.jsonl", [*_claims(TRAIN)])
    _write(data / "claims_dev.jsonl", _claims([*TEST, *TRAIN[:2]])[: 2 * len(TEST) + 3])
    poems = ["which poet praised the autumn wind", "how does a sonnet rhyme"]
    _write(beside / "queries.jsonl", [{"_id": text, "text": text} for text in poems])
    given = ("eval", "rag", "--data", str(data), "--shards", "2")
    rows = _run(capsys, *given)
    assert [row["trained_on"] for row in rows] == [
        "train",
        "train, disjoint documents",
        "shipped default",
    ]
    # The train claims that are test claims, too, are not learned from.
    assert [row["training_questions"] for row in rows] == [49, 48, 0]
    for row in rows:
        assert row["off_topic_questions"] == "poems"
        assert (row["questions"], row["answerable"]) == (31, 16)
        # One gold sentence of four in a document: the wording finds it.
        assert row["sentence_recall@3"] == row["sentence_recall_end_to_end@5"] == 1.0
        assert row["offset_accuracy"] == 1.0 and int(str(row["citations"])) >= 31
        assert row["auroc_off_topic"] == 1.0
        assert row["answer_containment"] == 1.0
        assert 0 < float(str(row["citation_precision"])) <= 1
        assert float(str(row["first_delta_p50_ms"])) > 0
    for row in rows[:2]:
        # The kinds of claim differ by words that no document has.
        assert row["auroc_no_evidence"] == 1.0
        assert (row["risk_at_target"], row["risk@0.5"]) == (0.0, 0.0)
        assert float(str(row["coverage_at_target"])) > 0.3


def _questions(names: Sequence[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in names:
        text = " ".join(_sentences(name))
        answer = f"{60 + NAMES.index(name)} centimetres"
        asked = f"How long is the cord of the {name} kettle?"
        rows += [
            {
                "query_id": f"{name} yes",
                "text": asked,
                "doc_id": name,
                "answers": [{"text": answer, "answer_start": text.index(answer)}],
            },
            {"query_id": f"{name} no", "text": f"Who wrote the {name} opera?", "doc_id": name},
        ]
    return rows


@pytest.mark.long
def test_a_build_calibrates_on_answers_and_its_card_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "kettles"
    data.mkdir()
    _corpus(data)
    train = TRAIN[: scaled(20, nightly=len(TRAIN))]
    _write(data / "questions_train.jsonl", _questions(train))
    _write(data / "questions_dev.jsonl", _questions(TEST[: scaled(7, nightly=len(TEST))]))
    # What cannot be read beside the data is passed over.
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "queries.jsonl").write_text("{", "utf-8")
    store = str(tmp_path / "store")
    corpus = str(data / "corpus.jsonl")
    given = ("--corpus", corpus, "--store", store, "--calibrate-on", str(data))
    (built,) = _run(capsys, "build", *given)
    assert isinstance(built["answers"], dict)
    assert (built["answers"]["questions"], built["answers"]["answerable"]) == (
        2 * len(train),
        len(train),
    )
    assert built["answers"]["auroc_no_evidence"] == 1.0
    assert "calibrate" in dict(built["seconds"])  # type: ignore[call-overload]
    (manifest,) = _run(capsys, "snapshots", "show", "--store", store)
    assert isinstance(manifest["answers"], dict) and manifest["answers"]["target_risk"] == 0.15
    rows = _run(capsys, "eval", "rag", "--data", str(data), "--store", store)
    assert len(rows) == 3
    for row in rows:
        assert row["off_topic_questions"] is row["auroc_off_topic"] is None
        # The answer is in the second sentence of four, and is said word for word.
        assert (row["offset_accuracy"], row["answer_containment"]) == (1.0, 1.0)
        assert row["sentence_recall@3"] == 1.0
        came = [float(str(row[name])) for name in ("answered", "not_sure", "refused")]
        assert sum(came) == pytest.approx(1, abs=1e-3)
        assert float(str(row["right_or_shown"])) >= float(str(row["right"]))
    assert all(float(str(row["unanswerable_answered"])) < 0.5 for row in rows[:2])
    assert [row["auroc_no_evidence"] for row in rows[:2]] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("build", "--corpus", "corpus.jsonl", "--calibrate-on", "."), "has no labelled questions"),
        (
            ("build", "--corpus", "corpus.jsonl", "--calibrate-on", ".", "--calibrate-split", "s"),
            "there are 4 labelled questions, 4 of them with an answer",
        ),
        (("eval", "rag", "--data", "."), "has no labelled questions of split 'dev'"),
        (("eval", "rag", "--data", "absent"), "there is no folder absent"),
    ],
)
def test_missing_or_too_few_labels_end_the_command_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _corpus(tmp_path)
    _write(tmp_path / "questions_s.jsonl", _questions(TRAIN[:4])[::2])
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / ".nearline").exists()
