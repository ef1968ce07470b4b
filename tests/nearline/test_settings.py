"""Settings: precedence, typing, and unknown names."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from nearline.errors import SettingsError
from nearline.settings import Settings, load_from_process, parse_arguments


class Sample(Settings):
    """Two fields are enough."""

    section: ClassVar[str] = "embedding"
    max_texts: int = Field(8, ge=1, description="Texts.")
    eager: bool = Field(False, description="Flag.")


def config(folder: Path, text: str) -> Path:
    path = folder / "nearline.toml"
    path.write_text(text)
    return path


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = config(tmp_path, "[embedding]\nmax_texts = 2\n")
    environ = {"NEARLINE_EMBEDDING_MAX_TEXTS": "3"}
    assert Sample.load().max_texts == 8
    assert Sample.load(file=file).max_texts == 2
    assert Sample.load(environ=environ, file=file).max_texts == 3
    assert Sample.load({"max_texts": 4}, environ, file).max_texts == 4


@pytest.mark.parametrize("origin", ["argument", "environment", "file"])
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, origin: str) -> None:
    with pytest.raises(SettingsError, match=r"max_text .*nearest known one is max_texts"):
        if origin == "argument":
            Sample.load({"max_text": 1})
        elif origin == "environment":
            Sample.load(environ={"NEARLINE_EMBEDDING_MAX_TEXT": "1"})
        else:
            Sample.load(file=config(tmp_path, "[embedding]\nmax_text = 1\n"))


def test_a_bad_value_names_setting_value_and_both_ways_to_set_it() -> None:
    with pytest.raises(SettingsError) as caught:
        Sample.load({"max_texts": "0"})
    for part in ("embedding.max_texts", "'0'", "--max-texts", "NEARLINE_EMBEDDING_MAX_TEXTS"):
        assert part in caught.value.message


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample.load().max_texts = 1  # type: ignore[misc]


def test_arguments_are_pairs_or_flags() -> None:
    assert parse_arguments(["--max-texts", "3", "--eager"], Sample) == {
        "max_texts": "3",
        "eager": "true",
    }
    assert parse_arguments(["--max-texts=3"], Sample) == {"max_texts": "3"}
    with pytest.raises(SettingsError, match="needs a value"):
        parse_arguments(["--max-texts"], Sample)
    with pytest.raises(SettingsError, match="not of the form"):
        parse_arguments(["3"], Sample)


def test_a_misspelt_section_in_the_environment_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEARLINE_EMBEDING_PORT", "1")
    with pytest.raises(SettingsError, match="NEARLINE_EMBEDDING_"):
        load_from_process(Sample, [])


def test_a_missing_settings_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        Sample.load(file=tmp_path / "absent.toml")
