"""Settings of the generation service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from generation.backends.model_settings import ModelSettings


class GenerationSettings(ModelSettings):
    """Settings of the generation service, section `generation`."""

    section: ClassVar[str] = "generation"

    retrieval: str = Field(
        "127.0.0.1:7700", description="Router that finds the evidence, host:port."
    )
    embedding: str = Field(
        "",
        description="Embedding services that rank sentences, host:port separated by commas; the "
        "one whose model made a collection does, and the first has the cross-encoders. Empty: by "
        "words alone.",
    )
    rerank_chunks: int = Field(
        0,
        ge=0,
        le=200,
        description="Chunks that the embedding service's cross-encoder puts in order; 0: none.",
    )
    redis: str = Field(
        "",
        description="Redis for sessions, budgets and cached answers, redis://host:port/0; empty: "
        "none of them.",
    )
    session_ttl_s: int = Field(
        86_400, ge=1, le=1 << 31, description="Seconds that a session is kept after its last turn."
    )
    session_turns: int = Field(
        50, ge=1, le=1_000, description="Turns kept of a session; older ones are forgotten."
    )
    history_tokens: int = Field(
        1_000, ge=0, le=100_000, description="Tokens of earlier turns that a question sees."
    )
    prompt_tokens: int = Field(
        2_500, ge=256, le=1 << 20, description="Tokens of a model's prompt, evidence and all."
    )
    prompt: str = Field(
        "",
        description="Instructions for language models: a text file, or registry:NAME, "
        "registry:NAME@VERSION or registry:NAME@production of the store's models. Empty: as "
        "shipped.",
    )
    store: str = Field(
        "", description="Store whose prompts registry: names; see index_builder. Empty: none."
    )
    check_entailment: bool = Field(
        False,
        description="Ask the embedding service's entailment model about each sentence that a "
        "language model wrote.",
    )
    answer_ttl_s: int = Field(
        3_600, ge=0, le=1 << 31, description="Seconds that an answer is kept; 0: not at all."
    )
    callers: str = Field(
        "",
        description="TOML file of callers: [[caller]] with token_sha256, tenant, roles; empty: "
        "everybody may call.",
    )
    readers_attribute: str = Field(
        "",
        description='Attribute of items that lists who may read them: "public", "tenant:NAME", '
        '"role:NAME"; empty: everybody reads everything.',
    )
    tokens_per_session: int = Field(
        0, ge=0, description="Tokens that models may take for a session; 0: no limit."
    )
    tokens_per_tenant: int = Field(
        0,
        ge=0,
        description="Tokens that models may take for a tenant in a day of UTC; 0: no limit.",
    )
    tokens_per_day: int = Field(
        0, ge=0, description="Tokens that models may take in a UTC day; 0: no limit."
    )
