"""Settings of routers and shard servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from nearline.access.readers import READERS_ATTRIBUTE, readers_warning
from nearline.errors import SettingsError
from nearline.settings import ServerSettings
from nearline.store.snapshot import PARTITIONS


class SnapshotSettings(ServerSettings):
    """Settings that routers and shard servers share."""

    store: str = Field(
        ".nearline/store",
        description="Store of the snapshots: a folder, s3://bucket/prefix, gs://bucket/prefix or "
        "az://container/prefix.",
    )
    cache_dir: str = Field(
        "",
        description="Folder for files downloaded from an object store. If empty, "
        "NEARLINE_CACHE_DIR or the user's cache folder is used.",
    )
    collections: str = Field(
        "",
        description="Comma-separated collections to serve. If empty, all of the store are served.",
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Search threads per process. 0 means all cores but one."
    )

    device: str = Field(
        "auto",
        description="GPUs that also hold the vectors, as float16, and compare all of them for each "
        "search: auto (the first that torch can use, if any), cpu (none), cuda, cuda:1, "
        "cuda:0,cuda:1 or cuda:all. If one fails, the index on the CPU answers, and the reply says "
        "so.",
    )
    device_memory_bytes: int = Field(
        0,
        ge=0,
        le=1 << 44,
        description="Most memory of each GPU for vectors. 0: what is free, less 3 GiB that "
        "searches need.",
    )
    alias_poll_s: float = Field(
        1.0,
        gt=0,
        le=3600,
        description="Seconds between two reads of the aliases, which name the current snapshot.",
    )
    allow_empty: bool = Field(
        False,
        description="Whether to start although the store has no collection, so that one can be "
        "created. Without it, a wrong --store ends the start.",
    )
    snapshot_drain_s: float = Field(
        10.0,
        ge=0,
        le=86_400,
        description="Seconds that a snapshot stays loaded after its last request, once no alias "
        "names it. Must be longer than any request takes.",
    )
    load_headroom: float = Field(
        1.2,
        ge=0,
        le=100,
        description="Free memory required to load a snapshot, as a multiple of its size. 0 "
        "disables the check.",
    )

    redis: str = Field(
        "",
        description="Redis that holds the change logs, redis://host:port/0, "
        "redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/service. If "
        "empty, items cannot be changed, and changes made elsewhere are not served.",
    )

    def collection_names(self) -> list[str]:
        """Returns the names of the collections; empty means all."""
        return [name for name in (part.strip() for part in self.collections.split(",")) if name]

    def thread_count(self) -> int:
        """Returns the number of search threads; one core is left for the event loop."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) - 1)


class RouterSettings(SnapshotSettings):
    """Settings of a router; its shards run in its process unless `shards` names servers."""

    section: ClassVar[str] = "retrieval"
    retired: ClassVar[Mapping[str, str]] = {
        "drift_sample": "upkeep measures drift in recorded requests, see record_share",
        "drift_window_s": "upkeep measures drift in recorded requests, see record_share",
        "drift_rebuild": "upkeep rebuilds after drift, see its setting releases",
    }

    readers_attribute: str = Field("", description=READERS_ATTRIBUTE)
    embedding: str = Field(
        "",
        description="Comma-separated embedding services, host:port. Texts are embedded by the "
        "services that run the collection's model: the one with the least work in flight, or "
        "another if it fails. If empty, only vectors and item ids can be searched. Calls of "
        "EmbeddingService are passed on to the first.",
    )
    generation: str = Field(
        "",
        description="Generation service, host:port, to which calls of GenerationService are passed "
        "on. If empty, they are refused.",
    )
    ingest: str = Field(
        "",
        description="Document queue, host:port, to which calls of IngestService are passed on. If "
        "empty, they are refused.",
    )
    hot_lists: int = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="Number of shared lists (related items, popular items) cached in this process. "
        "The same number is computed before a new snapshot is served.",
    )
    max_collections: int = Field(
        200,
        ge=1,
        le=100_000,
        description="Most collections of the store; beyond it, none can be created. Each costs "
        "about 0.1 % of a core, two connections to Redis, and time at the start.",
    )
    policies: str = Field(
        "",
        description="TOML file with the policies of surfaces. If empty, the built-in policies for "
        "home, item_page, cart, trending and buy_again are used.",
    )
    shards: str = Field(
        "",
        description='Shard servers, "0=host:port,host:port;1=host:port". The addresses of a shard '
        "are its replicas, and the n-th addresses of all shards form replica group n. If empty, "
        "the shards run in this process.",
    )
    backend: Literal["faiss", "milvus"] = Field(
        "faiss",
        description="Search backend: FAISS, in shards, or a Milvus server that `nearline snapshots "
        "export` has written each snapshot to.",
    )
    milvus_uri: str = Field(
        "",
        description="Milvus server of backend milvus, http://host:port or https://host:port.",
    )
    milvus_token: str = Field(
        "",
        repr=False,
        description='Credentials for Milvus, "user:password" or an API key. Optional.',
    )
    max_comparisons: int = Field(
        2_000_000_000,
        ge=1,
        description="Most comparisons of vectors that one search may take, by an estimate made "
        "before it runs: queries x chunks for an exact search, far fewer with an index. The "
        "default is about a minute of one core.",
    )
    search_cache: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Number of search results cached in this process. 0 disables the cache. Items "
        "deleted in the meantime are left out, and a result with a changed item is searched again.",
    )
    search_cache_s: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="Seconds for which a cached search result is fresh. New items of the "
        "collection may appear that late. For six times as long, the result is still "
        "returned while a newer one is computed.",
    )
    redis_users: str = Field(
        "",
        description="Redis that holds users and sessions, if not the one in `redis`. It must not "
        "evict. Builds need it, too.",
    )
    redis_cache: str = Field(
        "",
        description="Redis that caches lists, if not the one in `redis`. It may evict: set "
        "maxmemory-policy allkeys-lru there.",
    )
    log_replicas: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Replicas of each Redis that must have a change or an interaction on disk "
        "before it is acknowledged (WAITAOF). Default: 1 with a Redis Cluster or Sentinel, where a "
        "failover would otherwise lose acknowledged changes; 0 with a single server.",
    )
    feed_block_redis: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Upserts and interactions are refused while more than this share of the "
        "maxmemory of Redis (without one, of the memory of its machine) is used, and less than 1 "
        "GiB is free. 1 disables this.",
    )
    feed_block_disk: float = Field(
        0.90,
        gt=0,
        le=1,
        description="Upserts are refused while more than this share of the disk of the store is "
        "used, and less than 4 GiB is free. 1 disables this.",
    )
    feed_block_memory: float = Field(
        0.90,
        gt=0,
        le=1,
        description="Upserts are refused while more than this share of the memory of this machine "
        "or of its control group is used, and less than 1 GiB is free. 1 disables this.",
    )
    allow_stale: bool = Field(
        False,
        description="With shards in this process: serve without the latest changes while the "
        "change log is unavailable or lost, and report that in every answer.",
    )
    recall_sample: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Share of searches that are repeated exactly in the background, to measure "
        "what the index misses. 0 disables this.",
    )
    record_queries: Literal["off", "vectors", "texts"] = Field(
        "vectors",
        description="What is recorded of a sample of requests, for evaluating other snapshots: "
        "nothing (off); requests with vectors in place of texts (vectors); or texts too (texts). "
        "Users and sessions are never recorded.",
    )
    record_share: float = Field(
        0.01, ge=0, le=1, description="Share of requests that are recorded. 0 disables recording."
    )
    popular_queries: int = Field(
        0,
        ge=0,
        description="Suggest also shows queries that were recorded at least this often; 5 keeps "
        "what few people search for to themselves. Needs record_queries texts. 0 shows none.",
    )
    shard_wait_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a ready replica of every shard, not counting running "
        "loads. At startup, the router then serves without the missing shards, unless all are "
        "missing.",
    )

    def security_warning(self) -> str:
        """Returns which protection the settings promise and do not give; empty if none."""
        return readers_warning(self.readers_attribute, has_credentials=self.has_credentials)

    def check(self) -> None:
        """Raises SettingsError if a setting lacks another one or contradicts it."""
        if self.backend == "milvus":
            if not self.milvus_uri:
                raise SettingsError(
                    "--backend milvus needs a server; add --milvus-uri http://host:19530"
                )
            if self.shards:
                raise SettingsError(
                    "--backend milvus has no shard servers; omit --shards, or use --backend faiss"
                )
        elif self.milvus_uri or self.milvus_token:
            name = "--milvus-uri" if self.milvus_uri else "--milvus-token"
            raise SettingsError(
                f"{name} does not apply to backend {self.backend}; add --backend milvus, or omit "
                f"{name}"
            )
        records_texts = self.record_queries == "texts" and self.record_share > 0
        if self.popular_queries and not records_texts:
            raise SettingsError(
                "--popular-queries needs recorded texts; add --record-queries texts and a "
                "--record-share above 0, or omit --popular-queries"
            )


class ShardSettings(SnapshotSettings):
    """Settings of a shard server."""

    section: ClassVar[str] = "shard"

    shard: str = Field(
        "", description="Comma-separated numbers of the shards to hold. If empty, all are held."
    )

    embedding: str = Field(
        "",
        description="Comma-separated embedding services, host:port. They embed changes that lack "
        "vectors of a snapshot's model; those with the same model share the work. If empty, such "
        "changes cannot be applied.",
    )
    allow_stale: bool = Field(
        False,
        description="Serve without the latest changes while the change log is unavailable or lost, "
        "and report that in every answer.",
    )

    def numbers(self) -> frozenset[int] | None:
        """Returns the shards to hold; None means all.

        Raises: SettingsError: not numbers in 0..63.
        """
        parts = [part.strip() for part in self.shard.split(",")] if self.shard.strip() else []
        for part in parts:
            if not (part.isascii() and part.isdigit() and int(part) < PARTITIONS):
                raise SettingsError(
                    f"--shard {self.shard!r} is not a list of shard numbers; write numbers in "
                    "0..63, separated by commas"
                )
        return frozenset(map(int, parts)) or None
