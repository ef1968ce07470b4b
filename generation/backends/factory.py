"""Makes models of settings: a client, its breaker, its retries; and what they cost."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import SecretStr

from generation.backends.circuit_breaker import Guarded
from generation.backends.model_settings import ModelSettings, split_model
from generation.backends.openai_chat import OpenAIChat, Timeouts
from generation.backends.prices import Price
from generation.backends.retries import Retrying
from generation.protocols.chat_model import ChatModel
from nearline.errors import SettingsError
from nearline.settings import ENV_PREFIX


class Row(NamedTuple):
    """A model that is set. model: As it is set, with its address."""

    name: str
    model: str
    api_key: SecretStr | None
    context_tokens: int
    price: str


def models_from(settings: ModelSettings) -> dict[str, ChatModel]:
    """Gives the models that are set, "small" before "large"; each connects at its first request.

    Raises: SettingsError: a key cannot be sent as a header.
    """
    timeouts = Timeouts(
        settings.model_connect_s, settings.model_first_text_s, settings.model_between_texts_s
    )
    models: dict[str, ChatModel] = {}
    for row in rows(settings):
        model, base_url = split_model(row.model)
        client = OpenAIChat(
            row.name,
            base_url,
            model,
            _key(row, settings.section),
            context_tokens=row.context_tokens,
            timeouts=timeouts,
        )
        models[row.name] = Retrying(Guarded(client, max_concurrent=settings.model_concurrent))
    return models


def prices_from(settings: ModelSettings) -> dict[str, Price]:
    """Gives the price of each model that is set."""
    return {row.name: Price(*map(float, row.price.split("/"))) for row in rows(settings)}


def rows(settings: ModelSettings) -> list[Row]:
    """Gives the models that are set, "small" before "large"."""
    s = settings
    both = (
        Row("small", s.small, s.small_api_key, s.small_context, s.small_price),
        Row("large", s.large, s.large_api_key, s.large_context, s.large_price),
    )
    return [row for row in both if row.model]


def _key(row: Row, section: str) -> str:
    key = row.api_key.get_secret_value().strip() if row.api_key else ""
    if not (key.isascii() and key.isprintable()):
        # The value is not shown: it is a secret.
        raise SettingsError(
            f"the key of model {row.name!r} holds signs other than printable ASCII; set "
            f"{ENV_PREFIX}{section.upper()}_{row.name.upper()}_API_KEY to the key alone"
        )
    return key
