"""Tests of `nearline eval retrieval`: build, serving over gRPC, and scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nearline_cli.main import main
from tests.scale import nightly


@nightly
@pytest.mark.service
@pytest.mark.timeout(600)
def test_hybrid_search_with_the_shipped_weight_is_good_on_cranfield(
    data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_folder / "cranfield"
    given = ["eval", "retrieval", "--data", str(data), "--mode", "hybrid", "--shards", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*given, "--json"])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["weight_origin"], record["shards"]) == ("default", 4)
    # An equal weight of both legs has 0.430, the vectors alone 0.396, the words alone 0.381.
    assert record["ndcg@10"] >= 0.43
