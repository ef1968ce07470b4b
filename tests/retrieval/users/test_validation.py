"""Invalid interactions are rejected with the field at fault."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nearline.contract.recommendations import Interaction
from nearline.errors import InvalidRequest
from nearline.times import to_us
from retrieval.users.validation import check_interactions

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
GOOD = Interaction(
    item_id="i" * 512,
    user_id="é" * 256,
    session_id="s",
    kind="k" * 64,
    time=NOW + timedelta(hours=1),
    weight=1e-30,
    list_id="list",
    position=0,
    event_id="e" * 128,
)


def check(*interactions: Interaction, key: str = "") -> None:
    check_interactions(interactions, key, to_us(NOW))


def test_values_at_the_limits_are_accepted() -> None:
    check(*[GOOD] * 1_024, key="k" * 128)
    check(Interaction(item_id="i", session_id="s"), Interaction(item_id="i", user_id="u"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"item_id": ""}, "item_id"),
        ({"item_id": "i" * 513}, "item_id"),
        ({"item_id": "\ud800"}, "item_id"),
        ({"user_id": "", "session_id": ""}, "user_id"),
        ({"user_id": "é" * 257}, "user_id"),
        ({"session_id": "s" * 513}, "session_id"),
        ({"kind": ""}, "kind"),
        ({"kind": "k" * 65}, "kind"),
        ({"event_id": "e" * 129}, "event_id"),
        ({"list_id": "l" * 513}, "list_id"),
        ({"weight": 0.0}, "weight"),
        ({"weight": -1.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"position": -1}, "position"),
        ({"list_id": ""}, "position"),
        ({"time": NOW.replace(tzinfo=None)}, "time"),
        ({"time": NOW + timedelta(hours=1, microseconds=1)}, "time"),
        ({"time": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)}, "time"),
    ],
)
def test_values_out_of_range_are_rejected(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(GOOD, GOOD, replace(GOOD, **change))
    assert caught.value.field == f"interactions[2].{field}"
    assert caught.value.field.partition(".")[0] in caught.value.message


def test_a_request_has_one_to_1024_interactions() -> None:
    for number in (0, 1_025):
        with pytest.raises(InvalidRequest, match=f"has {number:,} entries; 1..1,024") as caught:
            check(*[GOOD] * number)
        assert caught.value.field == "interactions"


def test_a_key_is_not_longer_than_128_bytes() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(GOOD, key="k" * 129)
    assert caught.value.field == "idempotency_key"
