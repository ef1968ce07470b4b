"""Tests of `nearline build --interactions`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from nearline.store.snapshot import Store
from nearline.times import DAY_US
from nearline_cli.main import main
from tests.index_builder.behaviour.circular_walks import ITEMS, walks
from tests.index_builder.behaviour.trained_snapshots import history_ids, read_trained

COLUMNS = ("--user-column", "userId", "--item-column", "movieId", "--time-column", "timestamp")
WHERE = ("--id-column", "movieId", "--vector-column", "vector")


def matrix_file(folder: Path, table: pa.Table, name: str) -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        csv.write_csv(table, path)
    return str(path)


def corpus(folder: Path, ending: str) -> str:
    """Items 1 to 12, ids being whole numbers, as MovieLens has them."""
    rng = np.random.default_rng(1)
    vectors: list[object] = rng.normal(size=(ITEMS, 4)).tolist()
    if ending != "parquet":
        vectors = [json.dumps(one) for one in vectors]
    columns = {"movieId": np.arange(1, ITEMS + 1), "vector": vectors}
    return matrix_file(folder, pa.table(columns), f"items.{ending}")


def events(folder: Path, ending: str, users: int = 40) -> str:
    rows = walks(users)
    columns = {
        "userId": rows.user + 1,
        # Of `walks`, numbers stand against ids.
        "movieId": ITEMS - rows.item,
        "timestamp": rows.time_us // 1_000_000,
        "kind": ["view"] * (len(rows.user) - 1) + ["return"],
    }
    return matrix_file(folder, pa.table(columns), f"events.{ending}")


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize("items", ["csv", "parquet"])
@pytest.mark.parametrize("interactions", ["csv", "parquet"])
def test_integer_ids_are_equal_in_every_file_format(
    tmp_path: Path, items: str, interactions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    files = ("--corpus", corpus(tmp_path, items), "--interactions", events(tmp_path, interactions))
    kinds = ("--kind-column", "kind", "--kind", "view=0.5")
    validation = ("--validate-on", "last-n:2", "--popularity-debias", "0.25")
    assert (
        run("build", *files, *WHERE, *COLUMNS, *kinds, *validation, "--store", store, "--json") == 0
    )
    told = json.loads(capsys.readouterr().out)["behaviour"]
    assert (told["interactions"], told["users"], told["items"]) == (359, 40, ITEMS)
    assert told["left_out"] == {"a kind that is not named": 1}
    assert told["validation_ndcg"]["no_repeats"] > 0.5
    trained = read_trained(Store.open(store))
    learned = trained.model
    assert told["popularity_debias"] == {"no_repeats": 0.25, "repeats": 0.25, "similar": 0.25}
    assert told["debias"]["similar"].startswith("popularity discounted by 0.25: NDCG ")
    assert (learned.similar_debias, learned.debias(repeats=True)) == (0.25, 0.25)
    assert dict(learned.kind_weights) == {"view": 0.5}
    # The last of user 1 in the file was of another kind.
    assert history_ids(trained, "40")[:3] == ["9", "8", "7"]
    history = trained.tables.histories.of("40")
    assert history is not None
    assert history.weight.tolist() == [0.5] * 9
    assert history.time_us[0] == 8 * DAY_US


def test_the_summary_says_what_was_learned_and_from_which_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    files = ("--corpus", corpus(tmp_path, "csv"), "--interactions", events(tmp_path, "csv", 3))
    assert run("build", *files, *WHERE, *COLUMNS, "--store", store) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "behaviour 27 interactions of 3 users with 12 items" in shown
    assert "1 x item_to_item plain, 1 x popular plain (not chosen)" in shown
    assert "note only 3 users can be tested, but 20 are needed" in shown
    # Merged into what there is, it stays.
    more = matrix_file(
        tmp_path, pa.table({"movieId": [99], "vector": [json.dumps([1, 0, 0, 0])]}), "more.csv"
    )
    merged = ("--corpus", more, "--mode", "merge")
    assert run("build", *merged, *WHERE, "--store", store, "--json") == 0
    told = json.loads(capsys.readouterr().out)["behaviour"]
    assert told["users"] == 3 and told["inherited"]
    assert run("build", *merged, *WHERE, "--store", store) == 0
    assert "to learn again use --interactions" in capsys.readouterr().out
    trained = read_trained(Store.open(store))
    assert "99" in trained.tables.ids and not trained.is_trained("99")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (("--item-column", "film"), "has no column film"),
        (("--validate-on", "sometimes"), "there is no split 'sometimes'"),
        (("--validate-on", "cold-items:0.2"), "models know nothing about items without"),
        (("--kind", "view"), "write for example purchase=5"),
        (("--min-per-user", "100"), "interactions is left"),
    ],
)
def test_bad_interactions_end_the_build_before_it_begins(
    tmp_path: Path, options: tuple[str, ...], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    files = ("--corpus", corpus(tmp_path, "csv"), "--interactions", events(tmp_path, "csv", 3))
    assert run("build", *files, *WHERE, *COLUMNS, *options, "--store", str(store)) != 0
    assert wrong in " ".join(capsys.readouterr().err.split())
    assert not store.exists()


def test_options_about_interactions_need_interactions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--corpus", corpus(tmp_path, "csv"), "--user-column", "u", "--min-per-user", "2")
    assert run("build", *words, *WHERE, "--store", str(tmp_path / "store")) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "--user-column, --min-per-user cannot be used without interactions" in told
    assert not (tmp_path / "store").exists()


def test_a_split_that_holds_out_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--corpus", corpus(tmp_path, "csv"), "--validate-on", "loo")
    assert run("build", *files, *WHERE, "--store", str(tmp_path / "store")) != 0
    assert "--interactions" in capsys.readouterr().err
