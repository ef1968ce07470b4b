"""Settings of the embedding service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import platformdirs
from pydantic import Field

from embedding.devices import AUTO, CPU, CPU_BATCH_TOKENS, default_batch_tokens, resolve_devices
from embedding.model import DEFAULT_MODEL
from nearline.settings import ServerSettings

_QUEUED_TOKENS = 262_144
_READ_AHEAD_TEXTS = 256


class EmbeddingSettings(ServerSettings):
    """Settings of the embedding service, section `embedding`."""

    section: ClassVar[str] = "embedding"

    model: str = Field(
        DEFAULT_MODEL,
        description="all-MiniLM-L6-v2, a sentence-transformers folder, a hub name, or "
        "registry:NAME, registry:NAME@VERSION or registry:NAME@production of the store's models.",
    )
    dimensions: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Keep only the first numbers of each vector, scaled to unit length; this is a "
        "separate model with its own fingerprint. 0 keeps all.",
    )
    store: str = Field(
        "",
        description="Store with the model registry and the snapshots; required for registry: "
        "names, and for the rerankers of snapshots.",
    )
    model_sha256: str = Field(
        "",
        pattern="^([0-9a-fA-F]{64})?$",
        description="Required SHA-256 of the weights; empty: the pinned one for the default model, "
        "any for other models.",
    )
    model_revision: str = Field("", description="Commit, tag or branch at the hub.")
    cache_dir: str = Field(
        "",
        description="Folder for converted models and measurements; empty: NEARLINE_CACHE_DIR, or "
        "the user's cache folder.",
    )
    prepared_dir: str = Field(
        "",
        description="Folder of converted models that is read before cache_dir and never written; "
        "the image sets it to that of its own model.",
    )
    reranker: str = Field(
        "",
        description="Cross-encoder for Rerank: a sentence-transformers CrossEncoder folder or hub "
        "name with one label, or registry:NAME. Runs on torch (pip install "
        "'nearline-server[torch]'). Empty: the shipped judge of answers, if the model is "
        "all-MiniLM-L6-v2 on OpenVINO and judge is set.",
    )
    judge: bool = Field(
        True,
        description="Serve the shipped judge of whether a sentence answers a question, by Rerank; "
        "it takes 60 MB of memory.",
    )
    entailment: str = Field(
        "",
        description="Model for Entail: a CrossEncoder folder or hub name whose id2label has "
        "entailment, contradiction, and neutral or not_entailment; or registry:NAME, of kind "
        "reranker. These run on torch. entailment-judge: the shipped judge; or a .safetensors "
        "file that `nearline models train-entailment` wrote. These change all-MiniLM-L6-v2 on "
        "OpenVINO, and take 60 MB of memory. Empty disables it.",
    )
    backend: Literal["auto", "openvino", "torch"] = Field(
        "auto",
        description="Engine that runs the model; auto measures at the first start and keeps the "
        "fastest.",
    )
    precision: Literal["auto", "f32", "bf16", "f16"] = Field(
        "auto",
        description="Number format of the engine; auto measures at the first start. f16 is for "
        "torch on CUDA.",
    )
    device: str = Field(
        AUTO,
        description="Device that runs the model: cpu, cuda, cuda:N, several as cuda:0,cuda:1, or "
        "cuda:all. auto: the first CUDA GPU, if torch is built for CUDA and can use one; otherwise "
        "the CPU. OpenVINO runs on the CPU.",
    )
    gpu_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds within which a GPU must answer a batch. After that, the CPU runs it, "
        "and the process of the GPU is started again.",
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads for inference; 0: all cores.")
    streams: int = Field(
        0,
        ge=0,
        le=256,
        description="Batches that OpenVINO runs at once; 0: OpenVINO chooses for throughput.",
    )
    token_budget: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="Maximum number of tokens in a batch, padding included; 0: 512 on a CPU, and "
        "on a GPU as many as its free memory holds, to 65,536. A larger budget is a little faster, "
        "but a query that arrives during a batch waits for the end of the batch: 512 tokens take "
        "about 30 ms on one core.",
    )
    max_texts: int = Field(1024, ge=1, le=1024, description="Texts allowed in one request.")
    max_characters: int = Field(
        65_536, ge=1, le=1 << 22, description="Code points allowed in one text."
    )
    max_queued_tokens: int = Field(
        0,
        ge=0,
        le=1 << 32,
        description="Tokens allowed to wait in each lane; one tenant may have half. 0: 262,144, "
        "or 32 batches if that is more.",
    )
    stream_read_ahead_texts: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Texts that an EmbedStream call has in progress at once; 0: 256, or a text for "
        "every 32 tokens of a batch if that is more.",
    )

    # Asked once; the first time it may take seconds.
    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices that `device` stands for on this machine, see `resolve_devices`."""
        if self.device == AUTO and self.backend == "openvino":
            return (CPU,)
        return resolve_devices(self.device)

    @property
    def on_gpu(self) -> bool:
        """Whether `devices` are GPUs."""
        return self.devices != (CPU,)

    @cached_property
    def batch_tokens(self) -> int:
        """Maximum number of padded tokens in a batch: `token_budget`, or what suits `devices`."""
        return self.token_budget or default_batch_tokens(self.devices)

    @property
    def queued_tokens(self) -> int:
        """`max_queued_tokens`, or what keeps `devices` busy."""
        return self.max_queued_tokens or max(_QUEUED_TOKENS, 32 * self.batch_tokens)

    @property
    def read_ahead_texts(self) -> int:
        """`stream_read_ahead_texts`, or what keeps `devices` busy."""
        return self.stream_read_ahead_texts or max(_READ_AHEAD_TEXTS, self.batch_tokens // 32)

    @property
    def cpu_batch_tokens(self) -> int:
        """The same for a model that runs on the CPU, whatever `devices` are."""
        return self.token_budget if self.token_budget and not self.on_gpu else CPU_BATCH_TOKENS


def cache_folder(settings: EmbeddingSettings, environ: Mapping[str, str]) -> Path:
    """Returns the cache folder: the setting, NEARLINE_CACHE_DIR, or the user's."""
    given = settings.cache_dir or environ.get("NEARLINE_CACHE_DIR", "")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("nearline"))
