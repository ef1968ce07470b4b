"""Tests of `nearline eval recommend --split cold-items:SHARE` with a real embedding service."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nearline_cli.main import main
from tests.scale import nightly

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

BREADS = (
    *("rye sourdough loaf", "wholemeal bread roll", "braided white bread", "seeded baguette"),
    *("oat and honey loaf", "flat bread with garlic", "milk bread bun", "spelt bread"),
    *("corn bread", "potato bread loaf", "raisin bread", "olive bread", "dark rye bread", "toast"),
)
ENGINES = (
    *("diesel engine of a lorry", "turbocharger for a car", "steam locomotive", "gearbox oil"),
    *("brake discs of a van", "car exhaust pipe", "spark plug for a motor", "truck tyres"),
    *("motorcycle clutch", "radiator of a car", "fuel pump", "crankshaft", "piston rings", "axle"),
)


@nightly
def test_new_items_are_ranked_by_their_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(5)
    lines = ["user,item,time"]
    for user in range(200):
        offset = len(BREADS) * (user % 2)
        lines += [f"u{user},{offset + item},{item}" for item in rng.sample(range(14), 9)]
    (tmp_path / "events.csv").write_text("\n".join(lines), "utf-8")
    named = [f"{number},{text}" for number, text in enumerate((*BREADS, *ENGINES[:-1]))]
    (tmp_path / "items.csv").write_text("\n".join(["key,says", *named]), "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *("eval", "recommend", "--interactions", str(tmp_path / "events.csv")),
                *("--split", "cold-items:0.3", "--k", "3", "--corpus", str(tmp_path / "items.csv")),
                *("--id-column", "key", "--text-column", "says"),
                "--json",
            ]
        )
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    rows = [json.loads(line) for line in told.out.splitlines()]
    recall = {row["model"]: row["recall@3"] for row in rows}
    assert list(recall) == ["random", "content_average", "content", "served"]
    assert recall["random"] < min(recall["content_average"], recall["content"], recall["served"])
    assert all(row["items_without_text"] == 1 for row in rows)
    assert 0 < rows[0]["validation_explained"] <= 1
    assert "als" in rows[0]["models_left_out"]
