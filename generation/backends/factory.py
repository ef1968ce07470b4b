"""Creates the configured models, each with a client, a circuit breaker and retries."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from generation.backends.circuit_breaker import GuardedModel
from generation.backends.model_settings import ModelSettings, TokenPrice, split_model
from generation.protocols.chat_model import (
    ChatError,
    ChatEvent,
    ChatFailure,
    ChatLimits,
    ChatModel,
    Prompt,
)
from nearline.errors import SettingsError
from nearline.retry import Backoff
from nearline.settings import ENV_PREFIX
from nearline.tls import is_loopback

# Other failures would recur, or have used up the time.
_RETRIED = frozenset({ChatFailure.CONNECTION, ChatFailure.RATE_LIMITED, ChatFailure.SERVER})
_BACKOFF = Backoff(0.25, jitter=(0.5, 1.5))


class RetryingModel:
    """A model whose requests are retried up to `retries` times, within the caller's timeout.

    Nothing is retried after the first text. The pause doubles with each attempt and has a jitter of
    half its length, so that callers do not retry in step. A Retry-After time is obeyed if it is
    short enough; otherwise the error is raised immediately, so that the caller can use another
    model or none.

    Args:
        model: Preferably a `GuardedModel`, so that its breaker counts each attempt.
        retries: Attempts after the first, 0 or more.
        longest_pause_s: Maximum seconds to wait before an attempt.
        pause: Waits for a number of seconds.
        backoff: Pauses before the retries.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        retries: int = 2,
        longest_pause_s: float = 3.0,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self.name = model.name
        self._model = model
        self._retries = retries
        self._longest_pause_s = longest_pause_s
        self._pause = pause
        self._backoff = backoff

    async def close(self) -> None:
        """Closes the model."""
        await self._model.close()

    async def write(self, prompt: Prompt, limits: ChatLimits) -> AsyncGenerator[ChatEvent, None]:
        """Streams an answer; see `ChatModel.write`.

        Raises: ChatError: the error of the last attempt.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + limits.timeout_s
        last: ChatError | None = None
        for attempt in range(self._retries + 1):
            said = False
            left = dataclasses.replace(limits, timeout_s=deadline - now())
            try:
                async with contextlib.aclosing(self._model.write(prompt, left)) as events:
                    async for event in events:
                        said = True
                        yield event
                return
            except ChatError as error:
                if error.failure is ChatFailure.OPEN and last is not None:
                    # Another request became the probe; the earlier error is the actual cause.
                    raise last from None
                pause_s = self._pause_s(attempt, error.retry_after_s)
                if (
                    said
                    or error.failure not in _RETRIED
                    or attempt == self._retries
                    or pause_s > min(self._longest_pause_s, deadline - now())
                ):
                    raise
                last = error
            await self._pause(pause_s)

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        own_s = self._backoff.delay_s(attempt)
        # Slightly later than the server asked for, never earlier.
        return own_s if retry_after_s is None else retry_after_s + own_s / 10


class ModelConfig(NamedTuple):
    """A configured model. model: The value of the setting, including the address."""

    name: str
    model: str
    api_key: SecretStr | None
    context_tokens: int
    price: str


def create_models(settings: ModelSettings) -> dict[str, ChatModel]:
    """Returns the configured models, "small" before "large"; each connects at its first request.

    Raises: SettingsError: a key cannot be sent as a header, or would travel unencrypted, or the
        client is not installed.
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
            _key(row, base_url, settings),
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


def _key(row: ModelConfig, base_url: str, settings: ModelSettings) -> str:
    key = row.api_key.get_secret_value().strip() if row.api_key else ""
    if not (key.isascii() and key.isprintable()):
        # The value is a secret, so the message must not contain it.
        raise SettingsError(
            f"the key of model {row.name!r} has characters other than printable ASCII; set "
            f"{ENV_PREFIX}{settings.section.upper()}_{row.name.upper()}_API_KEY to the key only"
        )
    url = urlsplit(base_url)
    if key and url.scheme == "http" and not (settings.insecure or is_loopback(url.hostname or "")):
        raise SettingsError(
            f"the key of model {row.name!r} would travel unencrypted to {url.hostname}: use "
            "https://, or set NEARLINE_INSECURE=true if a network of your own protects it"
        )
    return key
