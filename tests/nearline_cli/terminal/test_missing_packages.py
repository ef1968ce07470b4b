"""A command that lacks a package names the extra that brings it."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from generation.backends.factory import create_models
from generation.settings import GenerationSettings
from index_builder.interactions.merge import NO_INTERACTIONS
from index_builder.options.training_options import TrainingOptions
from nearline.errors import SettingsError
from nearline_cli import app
from nearline_cli.compose.calibration import CalibrationOptions
from nearline_cli.local.processes import start_service
from nearline_cli.terminal.missing_packages import EXTRAS, SERVICES, missing_package

SERVER = Path(__file__).parents[3] / "server" / "pyproject.toml"


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads(SERVER.read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS) <= set(extras)


@pytest.mark.parametrize(
    ("module", "extra"), [("scipy.sparse", "training"), ("pyarrow", "standard"), ("ray", "ray")]
)
def test_a_missing_module_is_reported_with_its_extra(module: str, extra: str) -> None:
    found = missing_package(ModuleNotFoundError(name=module))
    assert found is not None and f"'nearline-server[{extra}]'" in found.message


def test_a_module_that_no_extra_brings_is_a_bug() -> None:
    assert missing_package(ModuleNotFoundError(name="scypi")) is None
    assert missing_package(ModuleNotFoundError()) is None


def test_the_command_ends_with_the_remedy_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(words: list[str], prog_name: str, standalone_mode: bool) -> None:
        raise ModuleNotFoundError("No module named 'faiss'", name="faiss")

    monkeypatch.setattr(app, "app", lacking)
    with pytest.raises(SystemExit) as ended:
        app.run(["build", "--json"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "pip install 'nearline-server[standard]'" in said.out + said.err
    assert "Traceback" not in said.out + said.err


async def test_a_service_without_its_packages_is_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tokenizers" else real(name)
    )
    with pytest.raises(SettingsError, match=r"embedding needs .* tokenizers, .*\[standard\]'"):
        await start_service("embedding")


def test_what_a_service_needs_is_in_the_extra_that_is_named() -> None:
    needed = {module for modules in SERVICES.values() for module in modules}
    assert needed <= set(EXTRAS["standard"])


def test_a_build_on_interactions_says_at_once_what_training_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "scipy" else real(name)
    )
    with pytest.raises(SettingsError, match=r"needs scipy, .* 'nearline-server\[training\]'"):
        TrainingOptions(interactions=NO_INTERACTIONS).check(seed=0)


def test_a_build_without_calibration_does_not_need_scikit_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "generation.training.calibrator", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert CalibrationOptions().questions() == []


def test_a_language_model_without_its_client_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "generation.backends.openai_chat", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    settings = GenerationSettings(small="tiny@http://127.0.0.1:9/v1")
    with pytest.raises(SettingsError, match=r"pip install 'nearline-server\[llm\]'"):
        create_models(settings)
