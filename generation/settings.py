"""Settings of the generation service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nearline.settings import ServerSettings


class GenerationSettings(ServerSettings):
    """Settings of the generation service, section `generation`."""

    section: ClassVar[str] = "generation"

    retrieval: str = Field(
        "127.0.0.1:7700", description="Router that finds the evidence, host:port."
    )
    embedding: str = Field(
        "",
        description="Embedding service that ranks sentences, host:port; empty: by words alone.",
    )
