"""Tests of the validation in `nearline users`."""

from __future__ import annotations

import pytest

from nearline.errors import InvalidRequest
from nearline_cli.app import app


@pytest.mark.parametrize(
    "words, told",
    [
        (("i1",), "use --user ID, --session ID or both"),
        (
            ("i1", "i2", "--user", "u", "--event-id", "e"),
            "--event-id e identifies one event, but 2 items",
        ),
    ],
)
def test_record_needs_a_user_or_session_and_one_item_per_event(
    words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        app(("users", "record", *words), standalone_mode=False)
