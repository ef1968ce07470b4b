"""Tests of the validation in `nearline users`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from nearline.errors import InvalidRequest
from nearline_cli.app import app
from tests.nearline_cli.conftest import Run, Up
from tests.redis_server import needs_redis


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


@pytest.mark.service
@needs_redis
def test_items_that_are_not_there_are_told(up: Callable[..., Up], nearline: Run) -> None:
    words = ("users", "record", "--user", "u", "--address", up(redis=True).address)
    assert nearline(*words, "d07").stdout == "recorded 1\n"
    told = "recorded 2, 1 of unknown items: see nearline items show ID\n"
    assert nearline(*words, "d08", "nothing").stdout == told


class _Client:
    """Stands for a connection; keeps what is set."""

    found: ClassVar[dict[str, object]] = {}

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> _Client:
        return self

    def __exit__(self, *of: object) -> None:
        pass

    def set_user(self, user_id: str, attributes: object, *, collection: str) -> None:
        self.found[user_id] = attributes


def test_attributes_are_set_with_their_types(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nearline_cli.commands.users.BlockingRetrievalClient", _Client)
    words = ("country=DE", "age=34", "share=0.5", "pro=true", 'zip="01067"', 'city="New York"')
    app(("users", "set", "u42", *words), standalone_mode=False)
    expected = {"country": "DE", "age": 34, "share": 0.5, "pro": True}
    assert _Client.found["u42"] == {**expected, "zip": "01067", "city": "New York"}
    assert capsys.readouterr().out == "u42 has 6 attributes\n"
    app(("users", "set", "u42"), standalone_mode=False)
    assert _Client.found["u42"] == {}


@pytest.mark.parametrize("words", [("country",), ("=DE",), ("age>3",), ("a=1", "a=2")])
def test_an_attribute_needs_a_name_and_a_value(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        app(("users", "set", "u42", *words), standalone_mode=False)
