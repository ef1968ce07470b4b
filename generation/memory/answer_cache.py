"""Caches answers in Redis; they are served as long as their sources are unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from generation.protocols import metrics
from nearline import contract as c
from nearline.access.caller import Caller
from nearline.errors import FeedBlocked, NotReady
from nearline.normalization import nfkc
from retrieval.protocols.watermark import decode_watermark
from retrieval.redis_client.connection import Redis, translate_redis_errors
from retrieval.writes.memory_quota import MemoryQuota

# The number is the version of the value format.
_PREFIX = "nearline:answer:2"


class CachedAnswer(NamedTuple):
    """events: Deltas and citations, in order. backend: Name of the writer.

    watermark: In hex, the changes of items that its evidence includes; empty if none are followed.
    not_sure: Whether it shows the closest passages instead of an answer.
    """

    events: Sequence[c.Delta | c.Citation]
    backend: str
    evidence_probability: float
    dropped_sentences: int = 0
    dropped_markers: int = 0
    watermark: str = ""
    not_sure: bool = False

    def includes(self, least: bytes) -> bool:
        """Returns whether its evidence includes a watermark; an empty one is always included."""
        if not least:
            return True
        has, wanted = (decode_watermark(one) for one in (bytes.fromhex(self.watermark), least))
        if has is None or wanted is None or has.log_id != wanted.log_id:
            return False
        return has.covers(wanted)

    @property
    def citations(self) -> list[c.Citation]:
        """The citations of the answer."""
        return [event for event in self.events if isinstance(event, c.Citation)]

    @property
    def text(self) -> str:
        """The text of the answer, with markers."""
        return "".join(event.text for event in self.events if isinstance(event, c.Delta))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """Everything that an answer depends on.

    question: The question, completed from the conversation.
    options: The request with its options.
    snapshot_id, fingerprint: Snapshot and embedding model that the answer is based on.
    policy: Versions of the prompt and of the routing.
    """

    collection: str
    caller: Caller
    question: str
    options: c.Question
    snapshot_id: str
    fingerprint: str
    policy: str

    def digest(self) -> str:
        """Returns the hash under which the answer is stored."""
        options = self.options
        parts = (
            self.collection,
            self.caller.tenant,
            sorted(self.caller.roles),
            normalize_question(self.question),
            repr(options.filter),
            None if options.mode is None else options.mode.value,
            options.max_tokens,
            options.documents,
            options.refuse,
            options.strictness and options.strictness.value,
            options.backend,
            options.unsupported.value,
            self.snapshot_id,
            self.fingerprint,
            self.policy,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def normalize_question(question: str) -> str:
    """Returns a question without variations of spacing and punctuation; case is kept, for code."""
    text = " ".join(nfkc(question).split())
    return text.rstrip("?!. ") or text


class AnswerCache:
    """Stores complete, undegraded answers for a limited time.

    Args:
        redis: Connection to Redis.
        ttl_s: Lifetime of an answer in seconds, >= 1.
        quota: Bounds what is stored of each tenant. Optional.
    """

    def __init__(self, redis: Redis, ttl_s: int, quota: MemoryQuota | None = None) -> None:
        self._redis = redis
        self._quota = quota
        self._ttl_s = ttl_s

    async def get(self, key: AnswerKey) -> CachedAnswer | None:
        """Returns an answer; None if there is none, or Redis is unavailable."""
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
            # The value is damaged, or was written by another program.
            metrics.cache_reads.labels("miss").inc()
            return None

    async def put(self, key: AnswerKey, answer: CachedAnswer) -> None:
        """Stores an answer; does nothing if Redis is unavailable, or has no room for it."""
        value = _encoded(answer)
        with contextlib.suppress(NotReady, FeedBlocked):
            if self._quota is not None:
                await self._quota.reserve(key.caller.owner, len(value))
            async with translate_redis_errors():
                await self._redis.set(_name(key), value, ex=self._ttl_s)


def _name(key: AnswerKey) -> str:
    return f"{_PREFIX}:{key.collection}:{key.digest()}"


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
