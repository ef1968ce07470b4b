"""Tests of `nearline build`, `nearline eval` and the batch job."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index_builder.indexes.faiss_writer import check_known
from nearline.store.snapshot import Store, kind_name
from nearline_cli.main import main
from tests.index_builder import gpu_stand_in

ROOT = Path(__file__).parents[3]


@pytest.fixture
def matrix(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, rng.normal(size=(120, 6)).astype(np.float32))
    return path


def _run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_build_of_a_matrix_prints_one_json_object(
    tmp_path: Path, matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    arguments = ("--store", store, "--shards", "2", "--json")
    assert _run("build", "--corpus", str(matrix), *arguments) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert shown.err == ""
    assert (record["documents"], record["dim"], record["recall@10"]) == (120, 6, 1.0)
    assert Store.open(store).alias_in_force("default").current == record["snapshot_id"]


def test_build_refuses_a_gpu_that_is_missing_and_names_the_work_of_the_cpu(
    tmp_path: Path,
    matrix: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("build", "--corpus", str(matrix), "--store", str(tmp_path / "store"))
    assert _run(*words, "--device", "gpu") == 2
    assert "device is 'gpu'; use auto, cpu, cuda or cuda:N" in capsys.readouterr().err
    gpu_stand_in.pretend(monkeypatch, "absent")
    assert _run(*words, "--device", "cuda:1") == 2
    assert "device is cuda:1, but CUDA shows 0" in capsys.readouterr().err
    gpu_stand_in.pretend(monkeypatch, "aborts")
    assert _run(*words) == 0
    assert "note        FAISS cannot count GPUs: its process was" in capsys.readouterr().out


def test_build_prints_a_summary_and_the_next_steps(
    tmp_path: Path, matrix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    assert _run("build", "--corpus", str(matrix), "--store", store, "--no-promote") == 0
    shown = capsys.readouterr()
    assert "documents   120 in 120 chunks" in shown.out
    assert "recall@10   1.0000" in shown.out
    assert "not served" in shown.out
    assert "read: 120 documents" in shown.err
    assert Store.open(store).collections() == []


def test_a_folder_as_people_have_it_is_built_and_all_that_is_left_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "red", "v": [1, 0]}\n')
    (folder / "photo.png").touch()
    (folder / "empty.txt").touch()
    (folder / "leak.txt").symlink_to(ROOT / "README.md")
    words = ("--corpus", str(folder), "--store", str(tmp_path / "store"), "--vector-column", "v")
    assert _run("build", *words) == 2
    said = capsys.readouterr().err
    assert "skipped 1 file of other formats: 1 .png (photo.png)" in said
    assert "2 malformed rows, 0 allowed; fix them, or leave them out with --max-bad-rows 2" in said
    assert f"{folder}/leak.txt: a link that leads out of the folder, to {ROOT}/README.md" in said
    assert f"{folder}/empty.txt: the file is empty; save or export it again" in said
    assert _run("build", *words, "--max-bad-rows", "2", "--json") == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert (record["documents"], record["bad_rows"], record["skipped"]) == (1, 2, {".png": 1})
    assert "skipped" not in shown.err


def test_lists_in_csv_cells_are_reported_and_a_declared_kind_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = tmp_path / "songs.csv"
    songs.write_text('id,text,genres,v\na,red,rock|pop,"[1,0]"\nb,blue,jazz,"[0,1]"\n')
    store = str(tmp_path / "store")
    words = ("build", "--corpus", str(songs), "--store", store, "--vector-column", "v")
    assert _run(*words) == 0
    shown = capsys.readouterr().out
    assert f'lists       genres of {songs} is read as lists, such as ["rock", "pop"]' in shown
    assert "--attribute genres:string keeps the text of its cells" in shown
    fields = {"text": ("--attribute", "genres:string"), "both": ("--attribute-columns", "*,text")}
    for collection, given in fields.items():
        assert _run(*words, "--collection", collection, *given, "--json") == 0
    text, both = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert text["lists"] == []
    assert both["lists"] == [
        {"source": str(songs), "attribute": "genres", "example": '["rock", "pop"]'}
    ]
    opened = Store.open(store)
    kinds = {
        name: {
            one.name: kind_name(one)
            for one in opened.manifest(name, opened.alias_in_force(name).current).attributes
        }
        for name in opened.collections()
    }
    assert kinds == {
        "default": {"genres": "string[]"},
        "text": {"genres": "string"},
        "both": {"genres": "string[]", "text": "string"},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corpus", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--shards", "0"], "shards is 0; 1..64 is allowed"),
        (["--index", "Nonsense"], "index factory 'Nonsense'"),
        (["--metric", "l2"], "metric"),
        (["--language", "klingon"], "no stemmer for language 'klingon'"),
        (["--tune-on", "nowhere"], "nowhere has no corpus.jsonl"),
        (["--store", "ftp://host/x"], "scheme 'ftp'"),
    ],
)
def test_a_bad_argument_is_one_line(
    tmp_path: Path,
    matrix: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    given = ["--corpus", str(matrix), "--store", str(tmp_path / "store"), *arguments]
    if "nowhere.jsonl" in arguments:
        given = given[2:]
    assert _run("build", *given) in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("nearline: ")
    assert said in last


def test_an_embedding_service_that_is_away_is_waited_for_in_plain_sight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline_cli.compose.build_context._FIRST_REPLY_S", 0.0)
    monkeypatch.setattr("nearline_cli.terminal.progress._NOTE_AFTER_S", 0.0)
    corpus = tmp_path / "faq.jsonl"
    corpus.write_text('{"id": "a", "text": "red"}')
    words = ("--corpus", str(corpus), "--store", str(tmp_path / "store"))
    assert _run("build", *words, "--embedding", "127.0.0.1:1") == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first == "waiting for 127.0.0.1:1 …"
    assert last.startswith("nearline: 127.0.0.1:1 does not answer")


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ("", (), "the files of --corpus are empty"),
        ('{"id": "a", "text": "red"}', ("--index", "Nonsense"), "index factory 'Nonsense'"),
        ('{"id": "a", "text": "red"}', ("--shards", "0"), "shards is 0"),
    ],
)
def test_a_build_that_cannot_succeed_starts_no_service(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: str,
    words: tuple[str, ...],
    said: str,
) -> None:
    corpus = tmp_path / "faq.jsonl"
    corpus.write_text(rows)
    given = ("--corpus", str(corpus), "--store", str(tmp_path / "store"))
    assert _run("build", *given, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    "factory", ["auto", "Flat", "PQ25", "OPQ16_64,IVF1024,PQ16x4fs", "HNSW32,SQ8"]
)
def test_an_index_that_needs_some_dimension_is_known(factory: str) -> None:
    check_known(factory)


def test_eval_names_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("eval", "retrieval", "--data", str(tmp_path)) == 2
    assert "has no corpus.jsonl" in capsys.readouterr().err


def test_eval_refuses_to_tune_a_running_router(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(tmp_path), "--tune-on", str(tmp_path), "--address", "127.0.0.1:1"]
    assert _run("eval", "retrieval", *given) == 2
    assert "--address names a running router; leave out one of them" in capsys.readouterr().err


@pytest.mark.service
def test_the_batch_job_logs_and_prints_json_at_the_end(tmp_path: Path, matrix: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "index_builder", "--corpus", str(matrix)],
        cwd=ROOT,
        env={**os.environ, "NEARLINE_INDEX_BUILDER_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["documents"] == 120
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["service"] for event in events} == {"index_builder"}


@pytest.mark.service
def test_a_terminal_shows_progress_bars(tmp_path: Path, matrix: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "nearline_cli.main", "build"),
            *("--corpus", str(matrix), "--store", str(tmp_path / "store")),
        ],
        cwd=ROOT,
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    ):
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:  # Linux: the other end is closed.
            os.close(ours)
    assert b"index" in shown
    assert b"120/120" in shown
    assert "━".encode() in shown


@pytest.mark.service
def test_eval_of_a_small_data_set_goes_through_the_real_services(tmp_path: Path) -> None:
    texts = {"cat": "Cats purr and chase mice.", "sun": "The sun is a star.", "tea": "", "": ""}
    (tmp_path / "qrels").mkdir()
    lines = [json.dumps({"_id": n or "x", "title": n, "text": text}) for n, text in texts.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "1", "text": "a purring pet"}\n{"_id": "2", "text": "hot drink"}\n'
    )
    (tmp_path / "qrels" / "test.tsv").write_text("1\tcat\t1\n2\ttea\t1\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "nearline_cli.main", "eval", "retrieval"),
            *("--data", str(tmp_path), "--mode", "dense", "--json"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["mode"], record["split"], record["queries"]) == ("dense", "test", 2)
    assert (record["ndcg@10"], record["recall@100"], record["mrr@10"]) == (1.0, 1.0, 1.0)
    assert (record["shards"], record["documents"], record["bad_rows"]) == (4, 3, 1)
