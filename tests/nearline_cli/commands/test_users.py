"""`nearline users` refuses what cannot be meant, before it asks anybody."""

from __future__ import annotations

import pytest

from nearline.errors import InvalidRequest
from nearline_cli.main import app


@pytest.mark.parametrize(
    "words, told",
    [
        (("i1",), "use --user ID, --session ID or both"),
        (("i1", "i2", "--user", "u", "--event-id", "e"), "--event-id e names one event, not 2"),
    ],
)
def test_what_is_recorded_needs_somebody_and_an_event_is_one(
    words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        app(("users", "record", *words), standalone_mode=False)
