"""Maps error replies of OpenAI-compatible servers to `ChatError`."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

from generation.protocols.chat_model import ChatError, ChatFailure

# Codes, types and phrases of OpenAI, Azure, vLLM, llama.cpp, Ollama, LiteLLM and OpenRouter.
_QUOTA = re.compile(
    r"insufficient_(?:quota|balance|funds)|\bquota\b|usage limit|billing|out of credits?"
    r"|insufficient (?:balance|credits?|funds)|credit balance"
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|context (?:length|window|size)|maximum context"
    r"|prompt is too long|input is too long"
)
# Cannot match a path, a key or a text of the user.
_CODE = re.compile(r"[A-Za-z_]{3,40}")
_DAY_S = 86_400.0


def map_error(status: int, body: object, headers: Mapping[str, str]) -> ChatError:
    """Returns the error that a reply stands for.

    Args:
        status: HTTP status, 400 or above, or the code in an error event of a stream.
        body: The object under "error", or anything else that the server sent. Its texts may quote
            the prompt, so only a one-word code is passed on.
        headers: Headers of the reply, with lower-case names.
    """
    code, said = _code_and_text(body)
    failure = _failure(status, said)
    return ChatError(
        failure,
        f"HTTP {status}{f' ({code})' if code else ''}",
        retry_after_s=parse_retry_after(headers),
    )


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the wait that a server asks for; None if the headers name none.

    Returns: Seconds, 0..86,400.
    Source: RFC 9110, 10.2.3 (seconds or a date); `retry-after-ms` is OpenAI's and Azure's.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit_s
        except ValueError:
            try:
                date = email.utils.parsedate_to_datetime(value)
            except ValueError:
                continue
            seconds = date.timestamp() - time.time()
        if not math.isnan(seconds):
            return min(max(0.0, seconds), _DAY_S)
    return None


def _failure(status: int, said: str) -> ChatFailure:
    if status == 402 or (status in (400, 403, 429) and _QUOTA.search(said)):
        return ChatFailure.QUOTA
    if status in (401, 403):
        return ChatFailure.UNAUTHORISED
    if status == 413 or (status != 429 and _TOO_LONG.search(said)):
        return ChatFailure.TOO_LONG
    if status == 429:
        return ChatFailure.RATE_LIMITED
    if status == 408 or status >= 500:
        return ChatFailure.SERVER
    return ChatFailure.REFUSED_REQUEST


def _code_and_text(body: object) -> tuple[str, str]:
    """Returns a one-word code, if there is one, and all texts that may name the cause."""
    if not isinstance(body, Mapping):
        return "", str(body).lower()
    said = [body.get(key) for key in ("code", "type", "message", "detail")]
    codes = [one for one in said[:2] if isinstance(one, str) and _CODE.fullmatch(one)]
    return codes[0] if codes else "", " ".join(str(one) for one in said if one).lower()
