"""The language models of a service, each wrapped as a writer of answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from generation.backends.factory import create_models, model_configs, model_prices
from generation.backends.model_settings import TokenPrice
from generation.checks.entailment import EntailmentCheck, EntailmentService
from generation.protocols.writer import Writer
from generation.settings import GenerationSettings
from generation.writers.instructions import load_instructions
from generation.writers.llm_writer import LLMWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSet:
    """Language models, in addition to the extractive writer.

    writers: By name. prices: By name; a model without one costs nothing.
    prompt_tokens: Maximum tokens of a prompt; budgets reserve this many.
    version: Version of the prompt, its checks and the models; answers that were cached under a
    different version are not reused.
    """

    writers: Mapping[str, Writer] = field(default_factory=dict)
    prices: Mapping[str, TokenPrice] = field(default_factory=dict)
    prompt_tokens: int = 0
    version: str = ""


NO_MODELS = ModelSet()


@contextlib.asynccontextmanager
async def open_model_set(
    settings: GenerationSettings, entailment: EntailmentService | None = None
) -> AsyncIterator[ModelSet]:
    """Yields the configured models, and closes them at the end of the block.

    Args:
        settings: The models and their addresses.
        entailment: Checks their sentences if `check_entailment` is set.
    Raises: SettingsError: a key cannot be sent; also what `load_instructions` raises.
    """
    instructions = await asyncio.to_thread(load_instructions, settings.prompt, settings.store)
    chosen = {row.name: row for row in model_configs(settings)}
    asked = entailment if settings.check_entailment else None
    check = None if asked is None else EntailmentCheck(asked)
    async with contextlib.AsyncExitStack() as stack:
        writers = {}
        for name, model in create_models(settings).items():
            stack.push_async_callback(model.close)
            writers[name] = LLMWriter(
                model,
                context_tokens=chosen[name].context_tokens,
                prompt_tokens=settings.prompt_tokens,
                instructions=instructions,
                entailment=check,
            )
        yield ModelSet(
            writers=writers,
            prices=model_prices(settings),
            prompt_tokens=settings.prompt_tokens,
            version=" ".join(
                [
                    f"{instructions.version} tokens={settings.prompt_tokens}",
                    f"entailment={settings.check_entailment}",
                    *(f"{r.name}={r.model} context={r.context_tokens}" for r in chosen.values()),
                ]
            ),
        )
