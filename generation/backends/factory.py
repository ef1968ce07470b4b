"""Creates the configured models, each with a client, a circuit breaker and retries."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import SecretStr

from generation.backends.circuit_breaker import GuardedModel
from generation.backends.model_settings import ModelSettings, TokenPrice, split_model
from generation.backends.retries import RetryingModel
from generation.protocols.chat_model import ChatModel
from nearline.errors import SettingsError
from nearline.settings import ENV_PREFIX


class ModelConfig(NamedTuple):
    """A configured model. model: The value of the setting, including the address."""

    name: str
    model: str
    api_key: SecretStr | None
    context_tokens: int
    price: str


def create_models(settings: ModelSettings) -> dict[str, ChatModel]:
    """Returns the configured models, "small" before "large"; each connects at its first request.

    Raises: SettingsError: a key cannot be sent as a header, or the client is not installed.
    """
    if not (configs := model_configs(settings)):
        return {}
    try:
        # Imported late: the library takes a second to load, and most services have no model.
        from generation.backends.openai_chat import OpenAIChat, Timeouts
    except ImportError as error:
        raise SettingsError(
            f"model {configs[0].name!r} needs the openai client, which is not installed ({error}); "
            "run pip install 'nearline-server[llm]', or leave the model unset"
        ) from error
    timeouts = Timeouts(
        settings.model_connect_s, settings.model_first_text_s, settings.model_between_texts_s
    )
    models: dict[str, ChatModel] = {}
    for row in configs:
        model, base_url = split_model(row.model)
        client = OpenAIChat(
            row.name,
            base_url,
            model,
            _key(row, settings.section),
            context_tokens=row.context_tokens,
            timeouts=timeouts,
        )
        models[row.name] = RetryingModel(
            GuardedModel(client, max_concurrent=settings.model_concurrent)
        )
    return models


def model_prices(settings: ModelSettings) -> dict[str, TokenPrice]:
    """Returns the price of each configured model."""
    return {
        row.name: TokenPrice(*map(float, row.price.split("/"))) for row in model_configs(settings)
    }


def model_configs(settings: ModelSettings) -> list[ModelConfig]:
    """Returns the configurations of the models, "small" before "large"."""
    s = settings
    both = (
        ModelConfig("small", s.small, s.small_api_key, s.small_context, s.small_price),
        ModelConfig("large", s.large, s.large_api_key, s.large_context, s.large_price),
    )
    return [row for row in both if row.model]


def _key(row: ModelConfig, section: str) -> str:
    key = row.api_key.get_secret_value().strip() if row.api_key else ""
    if not (key.isascii() and key.isprintable()):
        # The value is a secret, so the message must not contain it.
        raise SettingsError(
            f"the key of model {row.name!r} has characters other than printable ASCII; set "
            f"{ENV_PREFIX}{section.upper()}_{row.name.upper()}_API_KEY to the key only"
        )
    return key
