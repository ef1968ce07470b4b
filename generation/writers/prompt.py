"""Packs a question, earlier turns and the evidence into a prompt of bounded length.

Evidence is untrusted: anyone may have written it. It is put between fences with a key that is new
in every request, so an author cannot know the key; if a text contains it nevertheless, it is
removed. The model is instructed not to follow anything between the fences. The links of the answer
are checked by `link_filter`, and its sentences by `sentence_verifier`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from generation.checks.hidden_text import strip_hidden_text
from generation.checks.markers import escape_markers
from generation.evidence.sources import EvidenceSource, Passage, PromptChunk
from generation.protocols.chat_model import Message, Prompt
from generation.writers.instructions import DEFAULT_INSTRUCTIONS, Instructions
from nearline.contract import Hit, Turn
from nearline.sentences import estimate_tokens, sentences, token_starts

_KEY = re.compile(r"[0-9a-f]{16,64}")
# Shares of the room that the instructions leave; the evidence has the rest.
_QUESTION_SHARE = 0.5
_HISTORY_SHARE = 0.25
_TURN_TOKENS = 160
_TURN_CHARACTERS = 8_000  # Limit per turn, since whitespace counts as no token.
_TITLE_TOKENS = 32
# Characters of other scripts and widths that look like those of a key.
_LOOKALIKES = str.maketrans(
    "\u0430\u0251\u03b1\u044c\u0441\u03f2\u0501\u0435\u0192o\u043e\u03bfl\u0456\u04cf\u03b9|\u0437\u0431",
    "aaabccdef0001111136",
)
_FENCE_LIKE = re.compile(
    r"(?<![<＜﹤‹«])[<＜﹤‹«]{2,}+(?=\W*+(?:passage|end of|conversation))", re.IGNORECASE
)
# Chat templates separate roles by these; servers interpret them in any text.
_TEMPLATE_SIGN = re.compile(
    r"<(?=[|｜]|/?s>|/?(?:start|end)_of_turn>|<\s*/?SYS)|[|｜](?=>)|\[(?=/?INST\])", re.IGNORECASE
)

_ASKED = "Question:"


class PackedPrompt(NamedTuple):
    """prompt: The prompt. shown: The chunks in it, by number; empty if none fits."""

    prompt: Prompt
    shown: Sequence[PromptChunk]


def pack_prompt(
    question: str,
    sources: Sequence[EvidenceSource],
    history: Sequence[Turn],
    budget_tokens: int,
    nonce: str,
    instructions: Instructions = DEFAULT_INSTRUCTIONS,
) -> PackedPrompt:
    """Builds the prompt.

    Chunks are added by score, best first, as far as they fit; the last one is cut at a sentence.
    Overlapping text is included once.

    Args:
        question: The completed question; cut to half of the room.
        sources: The evidence, without near duplicates.
        history: Earlier turns, oldest first; the last ones that fit into a quarter of the room are
            used.
        budget_tokens: Maximum tokens of the prompt, by `estimate_tokens`. Instructions are never
            cut; if they exceed it alone, no evidence is included.
        nonce: Key of the fences, 16..64 lower-case hex digits, new for every request.
        instructions: The system message.
    Raises: ValueError: the nonce is malformed.
    """
    if not _KEY.fullmatch(nonce):
        raise ValueError("the nonce is not 16 to 64 lower-case hex digits; use secrets.token_hex")
    system = instructions.written(nonce)
    left = budget_tokens - estimate_tokens(f"{system} {_ASKED}")
    asked = _cut(_harmless(question, nonce).strip(), int(left * _QUESTION_SHARE))
    left -= estimate_tokens(asked)
    said = _conversation(history, int(left * _HISTORY_SHARE), nonce)
    left -= estimate_tokens(said)
    shown: list[PromptChunk] = []
    blocks: list[str] = []
    for at, hit in _best_first(sources):
        passages = _unseen(at, hit, shown)
        whole = len(passages)
        block = ""
        while passages:
            one = PromptChunk(len(shown) + 1, at, hit.chunk, passages)
            block = _block(one, sources[at], nonce)
            if estimate_tokens(block) <= left:
                shown.append(one)
                blocks.append(block)
                left -= estimate_tokens(block)
                break
            passages = passages[:-1]
        if 0 < len(passages) < whole:
            break
    parts = [*blocks, said, f"{_ASKED} {asked}"]
    messages = [
        Message("system", system),
        Message("user", "\n\n".join(part for part in parts if part)),
    ]
    tokens = sum(estimate_tokens(message.text) for message in messages)
    prompt = Prompt(messages=messages, version=instructions.version, tokens=tokens)
    return PackedPrompt(prompt, shown)


def _best_first(sources: Sequence[EvidenceSource]) -> list[tuple[int, Hit]]:
    chunks = [(at, hit) for at, source in enumerate(sources) for hit in source.chunks]
    return sorted(chunks, key=lambda chunk: -chunk[1].score)


def _unseen(source: int, hit: Hit, shown: Sequence[PromptChunk]) -> list[Passage]:
    """Returns the first run of a chunk's sentences that no earlier chunk contains."""
    text = hit.text or ""
    seen = [(one.start, one.end) for one in shown if one.source == source]
    run: list[Passage] = []
    for start, end in sentences(text):
        first, last = hit.start + start, hit.start + end
        if not any(first < seen_end and seen_start < last for seen_start, seen_end in seen):
            run.append(Passage(source, hit.chunk, first, last, text[start:end]))
        elif run:
            break
    return run


def _block(shown: PromptChunk, source: EvidenceSource, nonce: str) -> str:
    hit = source.chunk(shown.chunk)
    text = (hit.text or "")[shown.start - hit.start : shown.end - hit.start]
    title = " ".join(_harmless(source.best.title or "", nonce).split())
    lines = [
        f"<<passage {shown.number} {nonce}>>",
        *([f"Title: {_cut(title, _TITLE_TOKENS)}"] if title else []),
        _harmless(text, nonce),
        f"<<end of passage {shown.number} {nonce}>>",
    ]
    return "\n".join(lines)


def _conversation(history: Sequence[Turn], budget_tokens: int, nonce: str) -> str:
    """Returns the last turns that fit, fenced; empty if none does."""
    fences = f"<<conversation {nonce}>>", f"<<end of conversation {nonce}>>"
    left = budget_tokens - sum(estimate_tokens(fence) for fence in fences)
    turns: list[str] = []
    for turn in reversed(history):
        asked, answer = (
            _cut(" ".join(_harmless(text[:_TURN_CHARACTERS], nonce).split()), _TURN_TOKENS)
            for text in (turn.question, turn.answer)
        )
        text = f"Asked: {asked}\nAnswered: {answer or '(nothing)'}"
        left -= estimate_tokens(text)
        if left < 0:
            break
        turns.append(text)
    return "\n".join([fences[0], *reversed(turns), fences[1]]) if turns else ""


def _harmless(text: str, nonce: str) -> str:
    """Returns an untrusted text in a form that is safe in a prompt.

    Invisible characters are removed, and nothing reads as a marker, a fence or a template token.
    """
    text = _TEMPLATE_SIGN.sub(
        lambda match: f"{match.group()} ", escape_markers(strip_hidden_text(text))
    )
    text = _FENCE_LIKE.sub(lambda match: " ".join(match.group()), text)
    folded = "".join(_fold(sign) for sign in text)
    parts, at = [], 0
    while (found := folded.find(nonce, at)) >= 0:
        parts += [text[at:found], "…"]
        at = found + len(nonce)
    return "".join([*parts, text[at:]])


def _fold(sign: str) -> str:
    """Returns the plain lower-case character that a character looks like; exactly one."""
    if not sign.isascii():
        sign = unicodedata.normalize("NFKC", sign)[:1]
    return sign.lower()[:1].translate(_LOOKALIKES)


def _cut(text: str, most_tokens: int) -> str:
    """Returns the whole sentences that fit; if the first one does not, its beginning."""
    if estimate_tokens(text) <= most_tokens:
        return text
    ends = [end for _, end in sentences(text) if estimate_tokens(text[:end]) <= most_tokens]
    if ends:
        return text[: ends[-1]]
    starts = list(token_starts(text, 0, len(text)))
    return text[: starts[max(0, most_tokens)]].rstrip() if starts else ""
