"""The models of a service, as the writers of answers that they are here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from generation.backends.factory import models_from, prices_from, rows
from generation.backends.prices import Price
from generation.protocols.writer import Writer
from generation.settings import GenerationSettings
from generation.writers.instructions import instructions_from
from generation.writers.llm_writer import PromptedWriter
from nearline.contract import Entailment


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What writes beside the extractive writer.

    writers: By name. prices: By name; a model without one costs nothing.
    prompt_tokens: Most tokens of a prompt, which is what budgets reserve. version: Of the prompt,
    of its checks, and of the models behind the names; answers cached under another one are not met.
    """

    writers: Mapping[str, Writer] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    prompt_tokens: int = 0
    version: str = ""


NO_MODELS = Models()


@contextlib.asynccontextmanager
async def opened(
    settings: GenerationSettings, entailment: Entailment | None = None
) -> AsyncIterator[Models]:
    """Gives the models that are set, and lets go of them at the end of the block.

    Args:
        settings: Which models, and where.
        entailment: Judges what they write, where `check_entailment` is set.
    Raises: SettingsError: a key cannot be sent. As `instructions_from`.
    """
    instructions = await asyncio.to_thread(instructions_from, settings.prompt, settings.store)
    chosen = {row.name: row for row in rows(settings)}
    async with contextlib.AsyncExitStack() as stack:
        writers = {}
        for name, model in models_from(settings).items():
            stack.push_async_callback(model.close)
            writers[name] = PromptedWriter(
                model,
                context_tokens=chosen[name].context_tokens,
                prompt_tokens=settings.prompt_tokens,
                instructions=instructions,
                entailment=entailment if settings.check_entailment else None,
            )
        yield Models(
            writers=writers,
            prices=prices_from(settings),
            prompt_tokens=settings.prompt_tokens,
            version=" ".join(
                [
                    f"{instructions.version} tokens={settings.prompt_tokens}",
                    f"entailment={settings.check_entailment}",
                    *(f"{r.name}={r.model} context={r.context_tokens}" for r in chosen.values()),
                ]
            ),
        )
