"""Settings of the generation service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from generation.backends.model_settings import ModelSettings
from generation.evidence.strictness import StrictnessRules
from nearline.access.readers import READERS_ATTRIBUTE, readers_warning
from nearline.calls.method_kinds import SLOW_ANSWER_MS


class GenerationSettings(ModelSettings):
    """Settings of the generation service, section `generation`."""

    section: ClassVar[str] = "generation"

    slow_request_ms: float = Field(
        SLOW_ANSWER_MS,
        ge=0,
        le=3_600_000,
        description="Milliseconds beyond which a request is logged as slow, the whole answer "
        "included; 0 logs none.",
    )
    retrieval: str = Field(
        "127.0.0.1:7700", description="Router that finds the evidence, host:port."
    )
    embedding: str = Field(
        "",
        description="Embedding services that rank sentences, host:port separated by commas. For "
        "each collection, the services with its model share the work; cross-encoders come from the "
        "first service. Empty: sentences are ranked by words alone.",
    )
    rerank_chunks: int = Field(
        0,
        ge=0,
        le=200,
        description="Chunks that the embedding service's cross-encoder reranks; 0 disables it.",
    )
    redis: str = Field(
        "",
        description="Redis for sessions, budgets and cached answers, redis://host:port/0; empty "
        "disables all three. It must not evict. While more than four fifths of it is used and less "
        "than 1 GiB is free, neither sessions nor answers are stored.",
    )
    redis_cache: str = Field(
        "",
        description="Redis for sessions and cached answers, if not the one in `redis`. It may "
        "evict: set maxmemory-policy allkeys-lru there.",
    )
    session_ttl_s: int = Field(
        86_400, ge=1, le=1 << 31, description="Seconds that a session is kept after its last turn."
    )
    session_turns: int = Field(
        50, ge=1, le=1_000, description="Turns kept per session; older ones are dropped."
    )
    history_tokens: int = Field(
        1_000,
        ge=0,
        le=100_000,
        description="Maximum tokens of earlier turns that are taken into account.",
    )
    prompt_tokens: int = Field(
        2_500,
        ge=256,
        le=1 << 20,
        description="Maximum tokens of a model's prompt, including the evidence.",
    )
    prompt: str = Field(
        "",
        description="Instructions for language models: a text file, or registry:NAME, "
        "registry:NAME@VERSION or registry:NAME@production of the store's models. Empty: the "
        "default instructions.",
    )
    store: str = Field(
        "", description="Store with the registry of prompts; required for registry: names."
    )
    check_entailment: bool = Field(
        False,
        description="Check each sentence of a language model with the embedding service's "
        "entailment model.",
    )
    strictness: str = Field(
        "balanced",
        description="How sure the service must be to answer: strict, balanced or lenient, and for "
        "single collections NAME=WORD, for example balanced,policies=strict. A request may ask for "
        "another.",
    )
    answer_ttl_s: int = Field(
        3_600, ge=0, le=1 << 31, description="Seconds that an answer is cached; 0 disables caching."
    )
    callers: str = Field(
        "",
        description="TOML file of callers: [[caller]] with token_sha256, tenant, roles. Empty: "
        "callers are not authenticated.",
    )
    readers_attribute: str = Field("", description=READERS_ATTRIBUTE)
    tokens_per_session: int = Field(
        0, ge=0, description="Tokens that models may use per session; 0: no limit."
    )
    tokens_per_tenant: int = Field(
        0,
        ge=0,
        description="Tokens that models may use per tenant and UTC day; 0: no limit.",
    )
    tokens_per_day: int = Field(
        0, ge=0, description="Tokens that models may use per UTC day; 0: no limit."
    )

    @field_validator("strictness")
    @classmethod
    def _check_strictness(cls, value: str) -> str:
        StrictnessRules.parse(value)
        return value

    def security_warning(self) -> str:
        """Returns which protection the settings promise and do not give; empty if none."""
        known = self.has_credentials or bool(self.callers)
        return readers_warning(self.readers_attribute, has_credentials=known)
