"""Answers that were given before, kept in Redis and served while every source still stands."""

from __future__ import annotations

import contextlib
import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from generation.protocols import metrics
from generation.protocols.access import Caller
from nearline import contract as c
from nearline.errors import NotReady
from retrieval.redis_client.connection import Redis, translate_redis_errors

# The number counts the forms of a value.
_PREFIX = "nearline:answer:1"


class CachedAnswer(NamedTuple):
    """events: Deltas and citations, in order. backend: Who wrote them."""

    events: Sequence[c.Delta | c.Citation]
    backend: str
    evidence_probability: float
    dropped_sentences: int = 0
    dropped_markers: int = 0

    @property
    def citations(self) -> list[c.Citation]:
        """Its citations."""
        return [event for event in self.events if isinstance(event, c.Citation)]

    @property
    def text(self) -> str:
        """Its text, with markers."""
        return "".join(event.text for event in self.events if isinstance(event, c.Delta))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """What an answer depends on.

    question: As it stands on its own. asked: The question's options. snapshot_id, fingerprint: What
    it was answered from. policy: Versions of the prompt and of the routing.
    """

    collection: str
    caller: Caller
    question: str
    asked: c.Question
    snapshot_id: str
    fingerprint: str
    policy: str

    def digest(self) -> str:
        """Returns the name under which the answer is kept."""
        asked = self.asked
        parts = (
            self.collection,
            self.caller.tenant,
            sorted(self.caller.roles),
            normalize_question(self.question),
            repr(asked.filter),
            None if asked.mode is None else asked.mode.value,
            asked.max_tokens,
            asked.documents,
            asked.refuse,
            asked.backend,
            asked.unsupported.value,
            self.snapshot_id,
            self.fingerprint,
            self.policy,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def normalize_question(question: str) -> str:
    """Returns a question as two people may write it; letters keep their case, which code needs."""
    text = " ".join(unicodedata.normalize("NFKC", question).split())
    return text.rstrip("?!. ") or text


class AnswerCache:
    """Keeps whole, undegraded answers for a time.

    Args:
        redis: Where.
        ttl_s: How long, >= 1.
    """

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    async def get(self, key: AnswerKey) -> CachedAnswer | None:
        """Returns an answer; None where there is none, or Redis is away."""
        try:
            async with translate_redis_errors():
                value = await self._redis.get(_name(key))
        except NotReady:
            metrics.cache_reads.labels("away").inc()
            return None
        if value is None:
            metrics.cache_reads.labels("miss").inc()
            return None
        try:
            return _decoded(value)
        except (ValueError, TypeError, KeyError):
            # Damaged, or somebody else's.
            metrics.cache_reads.labels("miss").inc()
            return None

    async def put(self, key: AnswerKey, answer: CachedAnswer) -> None:
        """Keeps an answer, where Redis is there."""
        with contextlib.suppress(NotReady):
            async with translate_redis_errors():
                await self._redis.set(_name(key), _encoded(answer), ex=self._ttl_s)


def _name(key: AnswerKey) -> str:
    return f"{_PREFIX}:{key.digest()}"


def _encoded(answer: CachedAnswer) -> bytes:
    events = [
        {"citation" if isinstance(event, c.Citation) else "delta": asdict(event)}
        for event in answer.events
    ]
    return json.dumps({**answer._asdict(), "events": events}).encode()


def _decoded(value: bytes | str) -> CachedAnswer:
    record = json.loads(value)
    events: list[c.Delta | c.Citation] = [
        c.Citation(**each["citation"]) if "citation" in each else c.Delta(**each["delta"])
        for each in record.pop("events")
    ]
    return CachedAnswer(events, **record)
