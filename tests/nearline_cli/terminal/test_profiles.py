"""Tests of profiles: deployments that a user's file names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nearline.errors import SettingsError
from nearline_cli.terminal.profiles import LOCAL, read_profile, use_profile
from tests.nearline_cli.conftest import Run

TEXT = """
[one]
address = "127.0.0.1:1"

[two]
address = "127.0.0.1:2"
collection = "products"
token_file = "secret"
tls_ca = "/etc/ca.pem"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the user's file of profiles, in a folder of this test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "nearline" / "profiles.toml"
    path.parent.mkdir()
    path.write_text(TEXT)
    secret = path.with_name("secret")
    secret.write_text("nl_key\n")
    secret.chmod(0o600)
    return path


def test_a_profile_gives_address_collection_credential_and_ca(file: Path) -> None:
    assert read_profile("one", file) == {"NEARLINE_ADDRESS": "127.0.0.1:1"}
    assert read_profile("two", file) == {
        "NEARLINE_ADDRESS": "127.0.0.1:2",
        "NEARLINE_COLLECTION": "products",
        "NEARLINE_TOKEN": "nl_key",
        "NEARLINE_TLS_CA": "/etc/ca.pem",
    }


def test_the_option_goes_before_variables_and_these_before_the_variable_of_a_profile(
    file: Path, nearline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asks(*words: str) -> str:
        return str(json.loads(nearline(*words, "--json").stderr)["message"]).split()[0]

    monkeypatch.setenv("NEARLINE_PROFILE", "one")
    assert asks("search", "a") == "127.0.0.1:1"
    monkeypatch.setenv("NEARLINE_ADDRESS", "127.0.0.1:3")
    assert asks("search", "a") == "127.0.0.1:3"
    monkeypatch.setenv("NEARLINE_TLS_CA", "")
    file.write_text(TEXT.replace('tls_ca = "/etc/ca.pem"', ""))
    for words in (("--profile", "two", "search", "a"), ("search", "a", "--profile=two")):
        assert asks(*words) == "127.0.0.1:2"
    assert asks("search", "a", "--profile", "two", "--address", "127.0.0.1:4") == "127.0.0.1:4"
    for command in ("ask", "jobs list", "users show", "rollout status"):
        assert asks(*command.split(), *("a",) * (command in ("ask", "users show"))) == "127.0.0.1:3"


def test_commands_that_start_services_take_no_profile(
    file: Path, nearline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = nearline("up", "--profile", "one")
    assert refused.returncode == 2 and "takes no profile; leave --profile out" in refused.stderr
    monkeypatch.setenv("NEARLINE_PROFILE", "one")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for command in LOCAL:
        assert use_profile([command]) == [command]
    assert "NEARLINE_ADDRESS" not in os.environ


def test_words_after_two_dashes_name_no_profile(file: Path) -> None:
    line = ["up", "--", "--profile", "gone"]
    assert use_profile(line) == line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[two]\naddress = ?\n", "profiles.toml: Invalid value (at line 2"),
        ("[on]\naddress = 'a:1'", "has no profile 'two'; it has on"),
        ("[tow]\naddress = 'a:1'", "did you mean 'tow'?"),
        (
            "[x]\n[two]\ncolection = 'a'",
            "'two': colection is no key of a profile; did",
        ),
        (
            "[two]\naddress = 7",
            "'two': address is 7; a text in quotes is needed",
        ),
        (
            "[two]\ntoken = 'x'",
            "'two': a token does not belong in this file",
        ),
        ("[two]\ntoken_file = 'gone'", "gone cannot be read: No such file"),
        ("[two]\ntoken_file = 'profiles.toml'", "profiles.toml may be read by others (mode 644)"),
        ("[two]\ntoken_file = 'empty'", "empty holds no token on one line"),
    ],
)
def test_a_wrong_profile_is_refused_with_file_and_remedy(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    file.chmod(0o644)
    empty = file.with_name("empty")
    empty.touch(0o600)
    with pytest.raises(SettingsError) as caught:
        read_profile("two", file)
    assert said in caught.value.message
    if "token_file" in text:
        assert f"{file}, profile" in caught.value.message


def test_a_missing_file_of_profiles_is_named(file: Path, nearline: Run) -> None:
    file.unlink()
    said = nearline("search", "a", "--profile", "two").stderr
    assert f"{file} cannot be read: No such file" in said and "a table [two]" in said
