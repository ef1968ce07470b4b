"""Callers by tokens of any form, as Generation knew them before API keys."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from nearline.access.access_control import AccessControl
from nearline.access.caller import ANONYMOUS
from nearline.access.caller_file import CallerFile
from nearline.access.rights import Right
from nearline.errors import SettingsError, Unauthenticated


def written(folder: Path, text: str) -> Path:
    file = folder / "callers.toml"
    file.write_text(text, "utf-8")
    return file


def table(token: str, tenant: str, roles: str = "[]") -> str:
    digest = sha256(token.encode()).hexdigest()
    return f'[[caller]]\ntoken_sha256 = "{digest}"\ntenant = "{tenant}"\nroles = {roles}\n'


async def test_without_any_credentials_every_caller_is_anonymous() -> None:
    assert await AccessControl().identify([]) == ANONYMOUS
    assert await AccessControl().identify([("authorization", "Bearer whatever")]) == ANONYMOUS


async def test_a_token_names_its_caller_who_may_only_read(tmp_path: Path) -> None:
    text = table("one", "a", '["reader", "editor"]') + table("two", "b")
    access = AccessControl(callers=CallerFile.load(written(tmp_path, text)))
    one = await access.identify([("authorization", "Bearer one")])
    assert (one.tenant, one.roles) == ("a", ("editor", "reader"))
    two = await access.identify([("x", "y"), ("authorization", "bearer  two ")])
    assert (two.tenant, two.roles) == ("b", ())
    assert one.rights == two.rights == {"*": Right.READ}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ([], "carries no credential"),
        ([("authorization", "Basic b25l")], "carries no credential"),
        ([("authorization", "Bearer three")], "the token is unknown"),
        ([("authorization", "Bearer ")], "the token is unknown"),
    ],
)
async def test_unknown_callers_are_refused(
    tmp_path: Path, metadata: list[tuple[str, str | bytes]], says: str
) -> None:
    access = AccessControl(callers=CallerFile.load(written(tmp_path, table("one", "a"))))
    with pytest.raises(Unauthenticated, match=says):
        await access.identify(metadata)


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
        CallerFile.load(written(tmp_path, text))
    with pytest.raises(SettingsError, match="cannot be read"):
        CallerFile.load(tmp_path / "absent.toml")
