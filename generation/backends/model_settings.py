"""Settings of the language models that write answers, and their prices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from nearline.errors import SettingsError
from nearline.settings import ENV_PREFIX, ServerSettings

_PRICE = r"^\d+(\.\d+)?/\d+(\.\d+)?$"
_MODEL = "as MODEL@http://HOST:PORT/v1, any OpenAI-compatible server; empty disables it."
_KEY = "only from the variable or the file, because all users of the machine can see arguments."
_CONTEXT = "Size of the model's context in tokens, for prompt and answer together."
_COST = "Price per million prompt/answer tokens, in any currency, for example 0.15/0.60."


def split_model(value: str) -> tuple[str, str]:
    """Splits "model@http://host:port/v1" into model and URL; a model's name may contain an "@".

    Raises: ValueError: the value does not have this form.
    """
    match = re.fullmatch(r"(\S+?)@(https?://[^\s@?#]+)", value)
    try:
        # Reading the port raises ValueError if it is malformed.
        known = match and urlsplit(match[2]).hostname and urlsplit(match[2]).port != 0
    except ValueError:
        known = None
    if not match or not known:
        raise ValueError(
            "it must be MODEL@http://HOST:PORT/v1, with no user name, password or query in it"
        )
    return match[1], match[2].rstrip("/")


class ModelSettings(ServerSettings):
    """Addresses, prices and timeouts of the models."""

    small: str = Field("", description=f"Small model, {_MODEL}")
    small_api_key: SecretStr | None = Field(None, description=f"API key of the small model; {_KEY}")
    small_context: int = Field(4096, ge=256, le=1 << 24, description=_CONTEXT)
    small_price: str = Field("0/0", pattern=_PRICE, description=_COST)
    large: str = Field("", description=f"Large model, {_MODEL}")
    large_api_key: SecretStr | None = Field(None, description=f"API key of the large model; {_KEY}")
    large_context: int = Field(4096, ge=256, le=1 << 24, description=_CONTEXT)
    large_price: str = Field("0/0", pattern=_PRICE, description=_COST)
    model_concurrent: int = Field(
        8, ge=1, le=4096, description="Maximum concurrent requests to one model."
    )
    model_connect_s: float = Field(
        2.0, gt=0, le=60, description="Timeout for connecting to a model's server, in seconds."
    )
    model_first_text_s: float = Field(
        20.0,
        gt=0,
        le=600,
        description="Timeout for a model's first text, in seconds, including the connection.",
    )
    model_between_texts_s: float = Field(
        10.0, gt=0, le=600, description="Timeout between two texts of a model's answer, in seconds."
    )

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> Self:
        """Resolves the settings once; see `Settings.load`.

        Raises: SettingsError: as `Settings.load`; also if a key was passed as an argument.
        """
        for key in arguments or {}:
            if key.endswith("_api_key") and key in cls.model_fields:
                raise SettingsError(
                    f"argument --{key.replace('_', '-')}: every user of this machine can "
                    f"see arguments; set {ENV_PREFIX}{cls.section.upper()}_{key.upper()} instead"
                )
        return super().load(arguments, environ, file)

    @field_validator("small", "large")
    @classmethod
    def _check_model(cls, value: str) -> str:
        if value:
            split_model(value)
        return value


class TokenPrice(NamedTuple):
    """Prices per million tokens of the prompt and of the answer, in one currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns the cost of a number of tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1_000_000
