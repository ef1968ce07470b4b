"""The story of a list fits on one screen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nearline import contract as c
from nearline.v1 import admin_pb2
from nearline_cli.views.recommendations import print_recommendations, print_serving


def test_a_list_of_ten_and_its_story_take_one_screen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    snapshot_id = f"{hour_ago:%Y%m%dT%H%M%SZ}-1f3a9c"
    because = tuple(f"because:some-long-item-id-{number}" for number in range(3))
    reply = c.RecommendReply(
        recommendations=[
            c.Recommendation(
                hit=c.Hit(id=f"item-{at}", score=0.5, chunk=0, start=0, end=0, title="long " * 30),
                reasons=because,
            )
            for at in range(10)
        ],
        ignored_ids=[],
        info=c.ReplyInfo(
            epoch=7,
            snapshot_id=snapshot_id,
            fingerprint="",
            coverage=c.Coverage(shards_answered=1, shards_total=1),
            total_s=0.008,
            arm=c.Arm.CANARY,
        ),
        policy="home/0/8f14e45f",
        story=["candidates: what suits the history of the user", "left out: 1 (tv)"],
    )
    served = admin_pb2.CollectionStatus(collection="shop", documents=5_000)
    served.live.rows = 12
    served.training.trained, served.training.recorded, served.training.needed = 900, 50, 1_000
    served.training.newest_time.FromDatetime(hour_ago)
    status = admin_pb2.GetServingStatusResponse(collections=[served])
    print_recommendations(reply, 0.01, short=True)
    print_serving(reply, "shop", status)
    lines = capsys.readouterr().out.splitlines()
    assert sum(max(1, -(-len(line) // 100)) for line in lines) <= 24
    told = [line for line in lines if ": " in line and "because" not in line]
    assert told[:2] == list(reply.story)
    assert told[-3:] == [
        "snapshot: 1 h old, 5,000 documents; the canary of a trial",
        "live: 12 chunks changed since, 0 to follow",
        "models: 900 interactions, the newest 1 h ago; 50 were recorded; next training: needs 950 "
        "more interactions",
    ]
    assert sum("because:some-long-item-id-0" in line for line in lines) == 10
    # A shop that has trained nothing has no newest interaction.
    served.training.Clear()
    served.training.needed = 1_000
    print_serving(reply, "shop", admin_pb2.GetServingStatusResponse(collections=[served]))
    untrained = "models: none yet; 0 were recorded; next training: needs 1,000 more"
    assert untrained in capsys.readouterr().out
