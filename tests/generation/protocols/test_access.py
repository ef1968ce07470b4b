"""Tests the identification of callers by tokens, and the rights by attributes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from generation.protocols.access import ANONYMOUS, AccessControl, Caller
from nearline.errors import SettingsError, Unauthenticated
from nearline.filters import All, Equals, In, admits

ANNA = Caller("a", ("editor",))
READERS = "readers"


def written(folder: Path, text: str) -> str:
    file = folder / "callers.toml"
    file.write_text(text, "utf-8")
    return str(file)


def table(token: str, tenant: str, roles: str = "[]") -> str:
    digest = sha256(token.encode()).hexdigest()
    return f'[[caller]]\ntoken_sha256 = "{digest}"\ntenant = "{tenant}"\nroles = {roles}\n'


def test_without_a_file_every_caller_is_anonymous() -> None:
    assert AccessControl.load("", "").caller([]) == ANONYMOUS
    assert AccessControl().caller([("authorization", "Bearer whatever")]) == ANONYMOUS


def test_a_token_names_its_caller(tmp_path: Path) -> None:
    text = table("one", "a", '["reader", "editor"]') + table("two", "b")
    access = AccessControl.load(written(tmp_path, text), READERS)
    assert access.caller([("authorization", "Bearer one")]) == Caller("a", ("editor", "reader"))
    assert access.caller([("x", "y"), ("authorization", "bearer  two ")]) == Caller("b")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ([], "carries no token"),
        ([("authorization", "Basic b25l")], "carries no token"),
        ([("authorization", "Bearer three")], "the token is unknown"),
        ([("authorization", "Bearer ")], "the token is unknown"),
    ],
)
def test_unknown_callers_are_refused(
    tmp_path: Path, metadata: list[tuple[str, str | bytes]], says: str
) -> None:
    access = AccessControl.load(written(tmp_path, table("one", "a")), "")
    with pytest.raises(Unauthenticated, match=says):
        access.caller(metadata)


@pytest.mark.parametrize(
    "text",
    [
        "caller = 3",
        "[[caller]]\ntenant = 'a'",
        '[[caller]]\ntoken_sha256 = "abc"\ntenant = "a"',
        f'[[caller]]\ntoken_sha256 = "{"x" * 64}"\ntenant = "a"',
        table("one", ""),
        table("one", "a") + table("one", "b"),
        table("one", "a", '"editor"'),
        "no toml at all",
    ],
)
def test_a_malformed_file_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"callers in .* cannot be read"):
        AccessControl.load(written(tmp_path, text), "")
    with pytest.raises(SettingsError, match="cannot be read"):
        AccessControl.load(str(tmp_path / "absent.toml"), "")


@pytest.mark.parametrize(
    ("readers", "seen"),
    [
        (["public"], True),
        ("public", True),
        (["tenant:a"], True),
        (["role:editor", "tenant:b"], True),
        (["tenant:b"], False),
        (["a"], False),
        (["role:a"], False),
        ([], False),
        (None, False),
    ],
)
def test_an_item_is_visible_to_its_readers_and_the_filter_agrees(
    readers: object, seen: bool
) -> None:
    access = AccessControl(None, READERS)
    attributes = {} if readers is None else {READERS: readers}
    assert access.sees(ANNA, attributes) is seen  # type: ignore[arg-type]
    narrowed = access.narrow(None, ANNA)
    assert narrowed is not None and admits(narrowed, attributes) is seen


def test_the_filter_of_a_question_is_only_narrowed() -> None:
    asked = Equals("kind", "law")
    access = AccessControl(None, READERS)
    mine = In(READERS, ("public", "tenant:a", "role:editor"))
    assert access.narrow(asked, ANNA) == All(asked, mine)
    assert AccessControl().narrow(asked, ANNA) is asked
    assert AccessControl().sees(ANNA, {})


def test_a_conversation_belongs_to_a_tenant_and_its_roles() -> None:
    callers = [
        Caller("a"),
        Caller("a", ("b",)),
        Caller("a+b"),
        Caller("a", ("b", "c")),
        Caller("b"),
    ]
    assert len({caller.owner for caller in callers}) == len(callers)
    assert ANONYMOUS.owner == "default"
