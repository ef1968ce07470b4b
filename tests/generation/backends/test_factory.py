"""Tests the models created from settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from generation.backends.factory import create_models, model_prices
from generation.backends.model_settings import ModelSettings, TokenPrice, split_model
from nearline.errors import SettingsError
from tests.generation.backends.chat_server import finish, refuses, serving, streams
from tests.generation.backends.model_calls import ask

ROOT = Path(__file__).parents[3]


class Settings(ModelSettings):
    """Settings with only the models."""

    section: ClassVar[str] = "generation"


@pytest.mark.parametrize(
    ("value", "model", "url"),
    [
        ("m@http://127.0.0.1:8000/v1", "m", "http://127.0.0.1:8000/v1"),
        ("org/m:4b@https://api.host/v1/", "org/m:4b", "https://api.host/v1"),
        ("@cf/org/m@v2@https://host/v1", "@cf/org/m@v2", "https://host/v1"),
        ("m@http://[::1]:8000/v1", "m", "http://[::1]:8000/v1"),
    ],
)
def test_a_model_setting_is_split_into_name_and_url(value: str, model: str, url: str) -> None:
    assert split_model(value) == (model, url)


@pytest.mark.parametrize(
    "value",
    [
        "m",
        "http://host/v1",
        "@http://host/v1",
        "m@host:8000/v1",
        "m@ftp://host/v1",
        "m@http://",
        "m@http://user:pw@host/v1",
        "m@http://host/v1?key=1",
        "m@http://host:99999/v1",
        "two words@http://host/v1",
    ],
)
def test_malformed_model_settings_are_refused(value: str) -> None:
    with pytest.raises(
        SettingsError, match=r"setting generation\.small.*MODEL@http://HOST:PORT/v1"
    ):
        Settings.load({"small": value})


def test_no_model_is_the_default() -> None:
    assert create_models(Settings.load()) == {}
    assert model_prices(Settings.load()) == {}


@pytest.mark.service
async def test_the_configured_models_are_called() -> None:
    async with serving(refuses(500, {}), streams("Three", finish("stop"))) as server:
        settings = Settings.load(
            {"small": f"tiny@{server.url}", "small_context": 256},
            {
                "NEARLINE_GENERATION_SMALL_API_KEY": "sk-1\n",
                "NEARLINE_GENERATION_LARGE": "big@http://127.0.0.1:1/v1",
            },
        )
        models = create_models(settings)
        assert list(models) == ["small", "large"]
        # The first attempt fails, and is retried.
        assert (await ask(models["small"])).texts == ["Three"]
        for model in models.values():
            await model.close()
    assert [exchange.asked["model"] for exchange in server.exchanges] == ["tiny", "tiny"]
    assert {exchange.headers["authorization"] for exchange in server.exchanges} == {"Bearer sk-1"}


def test_a_key_is_refused_as_an_argument() -> None:
    with pytest.raises(SettingsError, match="NEARLINE_GENERATION_LARGE_API_KEY") as caught:
        Settings.load({"large_api_key": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


def test_a_key_never_appears_in_output(tmp_path: Path) -> None:
    file = tmp_path / "nearline.toml"
    file.write_text('[generation]\nsmall = "m@http://host/v1"\nsmall_api_key = "sk-schlüssel"\n')
    settings = Settings.load(file=file)
    assert "schlüssel" not in f"{settings!r} {settings} {settings.model_dump()}"
    with pytest.raises(SettingsError, match="NEARLINE_GENERATION_SMALL_API_KEY") as caught:
        create_models(settings)
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "more", "sent"),
    [
        ("http://far.example/v1", {}, False),
        ("http://127.0.0.1.far.example/v1", {}, False),
        ("http://far.example/v1", {"NEARLINE_INSECURE": "true"}, True),
        ("http://[::1]:8000/v1", {}, True),
        ("http://localhost:8000/v1", {}, True),
        ("https://far.example/v1", {}, True),
    ],
)
def test_a_key_is_not_sent_unencrypted_to_another_machine(
    url: str, more: dict[str, str], sent: bool
) -> None:
    environ = {"NEARLINE_GENERATION_LARGE_API_KEY": "sk-secret", **more}
    settings = Settings.load({"large": f"m@{url}"}, environ)
    if sent:
        assert list(create_models(settings)) == ["large"]
        return
    with pytest.raises(SettingsError, match="'large' would travel unencrypted to") as caught:
        create_models(settings)
    assert "sk-secret" not in str(caught.value)
    # Without a key, nothing is given away.
    assert list(create_models(Settings.load({"large": f"m@{url}"}))) == ["large"]


def test_prices() -> None:
    settings = Settings.load({"large": "m@http://host/v1", "large_price": "0.5/2"})
    price = model_prices(settings)["large"]
    assert price == TokenPrice(0.5, 2.0)
    assert price.of(3_000_000, 500_000) == 2.5


@pytest.mark.parametrize("value", ["1", "1/", "-1/2", "1/2/3", "a/b", "1/2 USD"])
def test_other_prices_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="small_price"):
        Settings.load({"small_price": value})


def test_a_service_without_a_model_does_not_load_the_model_library() -> None:
    code = "import sys, generation.__main__; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
