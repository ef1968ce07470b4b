"""Tests custom instructions, which must contain the rules that the checks need."""

from __future__ import annotations

from pathlib import Path

import pytest

from generation.checks.markers import NOT_ANSWERED
from generation.writers.instructions import DEFAULT_INSTRUCTIONS, Instructions, load_instructions
from generation.writers.prompt import pack_prompt
from nearline.errors import NotFound, SettingsError
from nearline.internal.v1 import model_pb2
from nearline.store.registry import Registry
from nearline.store.snapshot import Store

OWN = DEFAULT_INSTRUCTIONS.text.replace("Answer briefly", "Answer like a pirate, in {{braces}}")
KEY = "0123456789abcdef"


def read(folder: Path, text: str) -> Instructions:
    (folder / "prompt.txt").write_text(text, "utf-8")
    return load_instructions(str(folder / "prompt.txt"), "")


def test_the_default_instructions_apply_without_a_setting(tmp_path: Path) -> None:
    assert load_instructions("", "") is DEFAULT_INSTRUCTIONS
    assert read(tmp_path, f"{DEFAULT_INSTRUCTIONS.text}\n") is DEFAULT_INSTRUCTIONS


def test_custom_instructions_are_used_with_their_own_version(tmp_path: Path) -> None:
    own = read(tmp_path, OWN)
    packed = pack_prompt("What?", [], [], 4_000, KEY, own)
    system = packed.prompt.messages[0].text
    assert f"<<passage N {KEY}>>" in system and NOT_ANSWERED in system
    assert "Answer like a pirate, in {braces}" in system
    assert packed.prompt.version == own.version != DEFAULT_INSTRUCTIONS.version
    assert read(tmp_path, OWN + " Or so.").version != own.version


def test_instructions_may_come_from_the_registry(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    (tmp_path / "p.txt").write_text(OWN, "utf-8")
    registry = Registry(Store(tmp_path / "store"))
    registry.add("prompt", "pirate", model_pb2.ModelCard(), tmp_path / "p.txt")
    assert load_instructions("registry:pirate@1", store).text == OWN
    with pytest.raises(NotFound, match="no version of prompt pirate is in production"):
        load_instructions("registry:pirate@production", store)
    with pytest.raises(SettingsError, match="no store is set; set --store"):
        load_instructions("registry:pirate", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("<<end of passage N {key}>>", ""), r"does not say <<end of passage N {key}>>"),
        (OWN.replace("{not_answered}", "nothing"), "does not say {not_answered}"),
        (OWN.replace("[1]", "(1)"), r"does not say \[1\]"),
        (OWN + " {key.__class__}", "has {key.__class__}"),
        (OWN + " {question}", "has {question}"),
        (OWN + " {key!r}", "has {key}"),
        (OWN + " {}", "has {}"),
        (OWN + " {", "single brace"),
        (OWN + "x" * 20_000, "in at most 20000 characters"),
    ],
)
def test_instructions_that_break_the_checks_are_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        read(tmp_path, text)


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.txt cannot be read .*name a text file"):
        load_instructions(str(tmp_path / "none.txt"), "")
