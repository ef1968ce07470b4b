"""Keys and certificates from the command line; what cannot work is refused before it starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from nearline.access.api_keys import KeyFile
from nearline.access.rights import Right
from tests.nearline_cli.conftest import Run


def made(nearline: Run, *words: str) -> dict[str, str]:
    done = nearline("keys", "create", "--file", "keys.toml", "--json", *words)
    assert done.returncode == 0, done.stderr
    record: dict[str, str] = json.loads(done.stdout)
    return record


def test_a_key_is_made_listed_and_taken_back(nearline: Run, tmp_path: Path) -> None:
    key = made(
        nearline, "--tenant", "shop", "--right", "products=write", "--right", "read",
        "--role", "staff", "--expires", "90d",
    )  # fmt: skip
    other = made(nearline)
    caller = KeyFile(tmp_path / "keys.toml").identify(key["key"])
    assert (caller.name, caller.tenant, caller.roles) == (key["id"], "shop", ("staff",))
    assert caller.rights == {"products": Right.WRITE, "*": Right.READ}
    listed = nearline("keys", "list", "--file", "keys.toml")
    assert key["id"] in listed.stdout and "products=write, *=read" in listed.stdout
    assert key["key"] not in listed.stdout + (tmp_path / "keys.toml").read_text()
    assert (tmp_path / "keys.toml").stat().st_mode & 0o077 == 0
    # The whole key may be pasted; it is not shown again.
    for _ in range(2):
        gone = nearline("keys", "revoke", key["key"], "--file", "keys.toml", "--yes")
        assert key["key"] not in gone.stdout + gone.stderr
    assert gone.returncode == 1 and key["id"] in gone.stderr
    listed = nearline("keys", "list", "--file", "keys.toml", "--json")
    assert [one["id"] for one in json.loads(listed.stdout)["keys"]] == [other["id"]]


@pytest.mark.parametrize(
    "words",
    [
        ("--tenant", ""),
        ("--tenant", "a\nb"),
        ("--tenant", "x" * 129),
        ("--role", ""),
        ("--right", "delete"),
        ("--right", "=read"),
        ("--expires", "soon"),
        ("--right", "service"),
        ("--right", "scratch=service"),
    ],
)
def test_a_key_that_nothing_could_read_is_not_made(
    words: tuple[str, str], nearline: Run, tmp_path: Path
) -> None:
    done = nearline("keys", "create", "--file", "keys.toml", *words)
    assert done.returncode == 2 and not (tmp_path / "keys.toml").exists(), done.stderr


def test_a_folder_in_which_no_certificate_can_be_made_is_named(
    nearline: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert nearline("certs", "file").returncode == 2
    assert nearline("certs", "certs", "--host", "a b").returncode == 2
    assert nearline("certs", "certs").returncode == 0
    (tmp_path / "certs" / "ca.key").write_text("damaged")
    done = nearline("certs", "certs")
    assert done.returncode == 2 and "ca.key to begin anew" in done.stderr


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("TLS_CERT",), "NEARLINE_TLS_KEY"),
        (("TLS_KEY",), "NEARLINE_TLS_CERT"),
        (("TLS_CERT", "TLS_KEY"), "NEARLINE_TLS_CA"),
        (("TLS_CERT", "OTHER_KEY", "TLS_CA"), "cannot be used together"),
        (("TLS_CERT", "TLS_KEY", "TLS_CA", "KEYS"), "'service' (the API key is unknown"),
        (("TLS_CERT", "TLS_KEY", "TLS_CA", "KEYS", "TOKEN"), "it has the right 'write'"),
    ],
)
def test_services_that_could_not_call_each_other_are_not_started(
    names: Sequence[str],
    says: str,
    nearline: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [json.loads(nearline("certs", "c", "--name", n, "--json").stdout) for n in ("a", "b")]
    values = {
        "TLS_CERT": files[0]["certificate"],
        "TLS_KEY": files[0]["key"],
        "TLS_CA": files[0]["authority"],
        "KEYS": "keys.toml",
        "TOKEN": made(nearline, "--right", "write")["key"],
    }
    for name in names:
        value = files[1]["key"] if name == "OTHER_KEY" else values[name]
        path = value if name == "TOKEN" else str(tmp_path / value)
        monkeypatch.setenv(f"NEARLINE_{name.replace('OTHER', 'TLS')}", path)
    done = nearline("up", "--store", "store")
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
