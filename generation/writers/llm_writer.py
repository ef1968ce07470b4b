"""Answers that a language model writes from the evidence, checked sentence by sentence."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator

from generation.checks.draft_parser import DraftParser
from generation.checks.entailment import EntailmentCheck
from generation.checks.groundedness import GroundednessRules
from generation.checks.sentence_verifier import SentenceVerifier
from generation.protocols.chat_model import ChatEnd, ChatError, ChatFailure, ChatLimits, ChatModel
from generation.protocols.writer import AnswerPiece, AnswerTask, WriterEnd, WriterEvent
from generation.writers.instructions import DEFAULT_INSTRUCTIONS, Instructions
from generation.writers.prompt import pack_prompt
from nearline.sentences import estimate_tokens
from retrieval.index.lexical.text_analysis import NO_LANGUAGE

# The limit for a model, whatever its caller allows.
_LONGEST_S = 600.0
# Tokens that chat templates add; see `OpenAIChat`.
_TEMPLATE_TOKENS = 64
_NONCE_BYTES = 8
_ENGLISH = "english"
# A pair takes some 50 ms on a core; a sentence is not delayed for longer than this.
_JUDGE_S = 1.0
# Failures of requests that reached no model.
_UNREAD = frozenset(
    {
        ChatFailure.CONNECTION,
        ChatFailure.OPEN,
        ChatFailure.RATE_LIMITED,
        ChatFailure.QUOTA,
        ChatFailure.UNAUTHORISED,
        ChatFailure.TOO_LONG,
        ChatFailure.REFUSED_REQUEST,
        ChatFailure.SERVER,
    }
)


class LLMWriter:
    """A `Writer` that uses a language model.

    Args:
        model: The language model.
        context_tokens: Maximum tokens of prompt and answer together.
        prompt_tokens: Maximum tokens of the prompt.
        instructions: The system message of the model.
        entailment: Optional; checks the model's sentences in addition to the rules.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        context_tokens: int,
        prompt_tokens: int,
        instructions: Instructions = DEFAULT_INSTRUCTIONS,
        entailment: EntailmentCheck | None = None,
    ) -> None:
        self.name = model.name
        self._entailment = entailment
        self._model = model
        self._context_tokens = context_tokens
        self._prompt_tokens = prompt_tokens
        self._instructions = instructions

    async def write(self, task: AnswerTask) -> AsyncGenerator[WriterEvent, None]:
        """Yields the sentences that the evidence supports; see `Writer.write`."""
        sources = task.found.sources
        room = self._context_tokens - task.max_tokens - _TEMPLATE_TOKENS
        budget = min(self._prompt_tokens, room)
        nonce = secrets.token_hex(_NONCE_BYTES)
        packed = pack_prompt(
            task.question, sources, task.history, budget, nonce, self._instructions
        )
        if not packed.shown:
            raise ChatError(
                ChatFailure.TOO_LONG, f"no passage fits into a prompt of {max(0, budget)} tokens"
            )
        language = task.found.reply.results[0].language or NO_LANGUAGE
        verifier = SentenceVerifier(
            packed.shown,
            sources,
            task.question,
            mark=task.mark,
            # Names are recognised by capital letters, which works for English.
            rules=GroundednessRules(names=language == _ENGLISH, language=language),
        )
        drafts = DraftParser(len(packed.shown))
        limits = ChatLimits(
            max_tokens=task.max_tokens,
            temperature=task.temperature,
            timeout_s=_LONGEST_S if task.timeout_s is None else min(_LONGEST_S, task.timeout_s),
        )
        end = ChatEnd(False, 0, 0)
        written = 0
        try:
            async with contextlib.aclosing(self._model.write(packed.prompt, limits)) as events:
                async for event in events:
                    if isinstance(event, ChatEnd):
                        end = event
                        finished = drafts.end()
                    else:
                        written += estimate_tokens(event)
                        finished = drafts.feed(event)
                    for draft in finished:
                        one = verifier.check(draft)
                        if one is not None and self._entailment is not None:
                            one = await self._entailment.apply(one, sources, _JUDGE_S)
                        one = None if one is None else verifier.settle(one)
                        if one is not None:
                            yield AnswerPiece(one.text, one.spans, one.support, one.problems)
        except ChatError as error:
            if error.failure not in _UNREAD:
                error.prompt_tokens, error.completion_tokens = packed.prompt.tokens, written
            raise
        yield WriterEnd(
            end.length,
            end.prompt_tokens,
            end.completion_tokens,
            verifier.dropped_sentences,
            verifier.dropped_markers,
            verifier.declined,
        )
