"""Tests of `nearline eval recommend` on data where a ranker beats every blend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.index_builder.behaviour.repeat_buyers import rounds
from tests.nearline_cli.evaluate.test_recommendation import run


@pytest.mark.service
def test_a_winning_ranker_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The model of order would predict all of this alone.
    monkeypatch.setattr("index_builder.behaviour.sequence_trainer.MAX_ITEMS", 1)
    rows = rounds(users=110)
    file = tmp_path / "events.csv"
    lines = [
        f"{rows.users[user]},{rows.items[item]},{time_us // 1_000_000}"
        for user, item, time_us in zip(rows.user, rows.item, rows.time_us, strict=True)
    ]
    file.write_text("\n".join(["who,what,when", *lines]), "utf-8")
    words = ("--split", "last-n:1", "--repeats", "--k", "3", "--json")
    code, text = run(file, *words, served=True)
    assert code == 0, text
    *_, blended, ranked, served = [json.loads(line) for line in text.strip().splitlines()]
    models = [one["model"] for one in (blended, ranked, served)]
    assert models == ["blended", "ranked", "served"]
    assert "trees: NDCG" in ranked["settings"] and served["ranker"] == ranked["settings"]
    # What comes next is what was had longest ago, whenever it is asked for.
    assert blended["ndcg@3"] < 0.8 < 0.9 < ranked["ndcg@3"]
    assert served["ndcg@3"] > 0.9 and blended["served_ahead_low"] > 0.1
