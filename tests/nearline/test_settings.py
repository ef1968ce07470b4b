"""Settings: precedence, typing, and unknown names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from nearline import settings
from nearline.errors import SettingsError
from nearline.settings import ListenerSettings, Settings, load_from_process, parse_arguments


class Sample(Settings):
    """Two fields are enough."""

    section: ClassVar[str] = "embedding"
    max_texts: int = Field(8, ge=1, description="Texts.")
    eager: bool = Field(False, description="Flag.")


class UpkeepListener(ListenerSettings):
    """Settings of a service of one section."""

    section: ClassVar[str] = "upkeep"


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


def test_the_metrics_port_of_containers_gives_way_to_one_for_the_section() -> None:
    environ = {"NEARLINE_METRICS_PORT": "9464"}
    assert UpkeepListener.load(environ=environ).metrics_port == 9464
    environ["NEARLINE_UPKEEP_METRICS_PORT"] = "9465"
    assert UpkeepListener.load(environ=environ).metrics_port == 9465
    assert UpkeepListener.load({"metrics_port": 9466}, environ).metrics_port == 9466


@pytest.mark.parametrize("origin", ["argument", "environment", "file"])
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, origin: str) -> None:
    with pytest.raises(SettingsError, match=r"max_text .*nearest known one is max_texts"):
        if origin == "argument":
            Sample.load({"max_text": 1})
        elif origin == "environment":
            Sample.load(environ={"NEARLINE_EMBEDDING_MAX_TEXT": "1"})
        else:
            Sample.load(file=config(tmp_path, "[embedding]\nmax_text = 1\n"))


class Renewed(Sample):
    """A section that lost settings."""

    retired: ClassVar[Mapping[str, str]] = {"max_words": "see max_texts", "fast": "always on"}


@pytest.mark.parametrize("origin", ["argument", "environment", "file"])
def test_a_retired_setting_is_ignored_with_one_note_that_names_its_successor(
    tmp_path: Path, origin: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings._note_retired.cache_clear()
    for _ in range(2):
        if origin == "argument":
            words = ["--fast", "--max-words", "no number", "--max-texts", "3"]
            loaded = Renewed.load(parse_arguments(words, Renewed))
        elif origin == "environment":
            values = {"MAX_WORDS": "no number", "FAST": "true", "MAX_TEXTS": "3"}
            environ = {f"NEARLINE_EMBEDDING_{name}": value for name, value in values.items()}
            loaded = Renewed.load(environ=environ)
        else:
            text = '[embedding]\nmax_words = "no number"\nfast = true\nmax_texts = 3\n'
            loaded = Renewed.load(file=config(tmp_path, text))
        assert loaded == Renewed(max_texts=3)
    (note,) = caplog.messages
    assert "embedding.fast (always on); embedding.max_words (see max_texts)" in note


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


KUBERNETES = {
    "NEARLINE_SERVICE_HOST": "10.0.0.1",
    "NEARLINE_SERVICE_PORT": "7700",
    "NEARLINE_SERVICE_PORT_GRPC": "7700",
    "NEARLINE_PORT": "tcp://10.0.0.1:7700",
    "NEARLINE_PORT_7700_TCP": "tcp://10.0.0.1:7700",
    "NEARLINE_PORT_7700_TCP_PROTO": "tcp",
    "NEARLINE_PORT_7700_TCP_PORT": "7700",
    "NEARLINE_PORT_7700_TCP_ADDR": "10.0.0.1",
    "NEARLINE_EMBEDDING_SERVICE_HOST": "10.0.0.2",
    "NEARLINE_EMBEDDING_SERVICE_PORT": "7701",
    "NEARLINE_EMBEDDING_PORT": "tcp://10.0.0.2:7701",
    "NEARLINE_EMBEDDING_PORT_7701_TCP": "tcp://10.0.0.2:7701",
    "NEARLINE_SHARD_0_PORT_7702_TCP_ADDR": "10.0.0.3",
}


class Listening(Sample):
    """A section with a port, whose name a Service of Kubernetes may take."""

    port: int = Field(0, ge=0, description="Port.")


def test_variables_of_a_kubernetes_service_are_ignored_with_one_note(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NEARLINE_EMBEDDING_MAX_TEXTS", "3")
    for _ in range(2):
        assert load_from_process(Listening, []) == Listening(max_texts=3, port=0)
    (note,) = caplog.messages
    assert "13 variables" in note and "NEARLINE_EMBEDDING_PORT" in note


@pytest.mark.parametrize("value", ["x", "tcp:", "70000x"])
def test_a_port_that_is_no_address_of_kubernetes_is_still_a_setting(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NEARLINE_EMBEDDING_PORT", value)
    with pytest.raises(SettingsError, match="port = "):
        load_from_process(Listening, [])
    monkeypatch.setenv("NEARLINE_EMBEDDING_PORT", "7")
    assert load_from_process(Listening, []).port == 7


def test_variables_of_the_tests_do_not_keep_services_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Otherwise `make nightly` could start none.
    makefile = (Path(__file__).parents[2] / "Makefile").read_text("utf-8")
    names = set(re.findall(r"NEARLINE_TEST_[A-Z]+", makefile))
    assert "NEARLINE_TEST_NIGHTLY" in names
    for name in names:
        monkeypatch.setenv(name, "1")
    load_from_process(Listening, [])
