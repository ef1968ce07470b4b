"""Settings of the router and of shard servers."""

from __future__ import annotations

import os
from typing import ClassVar, Literal

from pydantic import Field

from nearline.errors import SettingsError
from nearline.settings import ServerSettings
from nearline.snapshot import PARTITIONS


class SnapshotSettings(ServerSettings):
    """What routers and shard servers have in common."""

    store: str = Field(
        ".nearline/store",
        description="What holds the snapshots: a folder, s3://bucket/prefix, gs://bucket/prefix or "
        "az://container/prefix.",
    )
    cache_dir: str = Field(
        "",
        description="Folder that keeps what was downloaded from an object store; empty: "
        "NEARLINE_CACHE_DIR, or the user's cache folder.",
    )
    collections: str = Field(
        "", description="Collections to serve, separated by commas; empty: all of the store."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Threads that search, per process; 0: all cores but one."
    )

    alias_poll_s: float = Field(
        1.0, gt=0, le=3600, description="Seconds between two looks at which snapshot is current."
    )
    snapshot_drain_s: float = Field(
        10.0,
        ge=0,
        le=86_400,
        description="Seconds that a snapshot stays loaded after its last request, once no alias "
        "names it; longer than any request takes.",
    )
    load_headroom: float = Field(
        1.2,
        ge=0,
        le=100,
        description="A snapshot is loaded only where this many times its bytes are free in memory; "
        "0: do not look.",
    )

    redis: str = Field(
        "",
        description="Redis that holds the change logs, redis://host:port/0; empty: items cannot be "
        "changed, and what was changed elsewhere is not served.",
    )

    def collection_names(self) -> list[str]:
        """Returns the collections named; none: all."""
        return [name for name in (part.strip() for part in self.collections.split(",")) if name]

    def thread_count(self) -> int:
        """Returns the number of threads to search in; one core is left to the event loop."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) - 1)


class RouterSettings(SnapshotSettings):
    """Settings of the router, with its shards inside unless `shards` says where they are."""

    section: ClassVar[str] = "retrieval"

    embedding: str = Field(
        "",
        description="Embedding services, host:port separated by commas; the one whose model made "
        "a collection embeds its query texts. Empty: vectors and item ids only.",
    )
    hot_lists: int = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="Lists that are the same for everybody (what goes with an item, what is "
        "popular) kept in this process; as many are made ready before a new snapshot is served.",
    )
    policies: str = Field(
        "",
        description="File with the policies of surfaces, TOML; empty: the built-in ones of home, "
        "item_page, cart, trending and buy_again.",
    )
    shards: str = Field(
        "",
        description='Shard servers, "0=host:port,host:port;1=host:port"; the addresses of a shard '
        "are its replicas, and the n-th of each shard make up replica group n. Empty: the shards "
        "run in this process.",
    )
    backend: Literal["faiss", "milvus"] = Field(
        "faiss",
        description="What searches: FAISS, in shards; or a Milvus that `nearline snapshots export` "
        "has written each snapshot to.",
    )
    milvus_uri: str = Field(
        "",
        description="The Milvus of backend milvus, http://host:port or https://host:port.",
    )
    milvus_token: str = Field(
        "",
        repr=False,
        description='What it asks for, "user:password" or an API key; empty: nothing.',
    )
    search_cache: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Answers to searches kept in this process; 0: none. What was deleted since is "
        "left out, and an answer with an item that was changed is found again.",
    )
    search_cache_s: float = Field(
        10.0,
        ge=1,
        le=3600,
        description="Seconds for which such an answer counts as new: what is new in the collection "
        "may come so late. Six times as long it is given while a newer one is found.",
    )
    log_replicas: int = Field(
        0,
        ge=0,
        le=16,
        description="Replicas of that Redis that must have a change on disk before it is "
        "acknowledged (WAITAOF).",
    )
    allow_stale: bool = Field(
        False,
        description="With shards in this process: serve them without the live changes that cannot "
        "be had, while the change log is away or lost, and say so in every answer.",
    )
    recall_sample: float = Field(
        0.005,
        ge=0,
        le=1,
        description="Share of searches that are done again exactly, beside the requests, so that "
        "it is known what the index misses; 0: none.",
    )
    record_queries: Literal["off", "vectors", "texts"] = Field(
        "vectors",
        description="What of a sample of requests is recorded in the store, to judge other "
        "snapshots by: nothing; all but texts, of which the vector is; or texts, too. Users and "
        "sessions never are.",
    )
    record_share: float = Field(
        0.01, ge=0, le=1, description="Share of requests in that sample; 0: none is recorded."
    )
    drift_sample: float = Field(
        0.05, ge=0, le=1, description="Share of searches that drift is measured on; 0: it is not."
    )
    drift_window_s: float = Field(
        600.0,
        gt=0,
        le=604_800,
        description="Seconds of searches that are held together against the first ones of the "
        "snapshot; longer where they are fewer than 200.",
    )
    drift_rebuild: float = Field(
        0.0,
        ge=0,
        description="Drift of queries, scores or popularity above which a rebuild is asked of "
        "upkeep, where it stayed above it for three windows; 0: never. 0.25 is a lot.",
    )
    shard_wait_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a ready replica of every shard, not counting loads under "
        "way. At start the router then serves without the shards that have none, unless none has.",
    )

    def check(self) -> None:
        """Raises SettingsError where settings need or exclude each other."""
        if self.backend == "milvus":
            if not self.milvus_uri:
                raise SettingsError(
                    "--backend milvus needs to know which; add --milvus-uri http://host:19530"
                )
            if self.shards:
                raise SettingsError(
                    "--backend milvus has no shard servers; leave --shards out, or serve with "
                    "--backend faiss"
                )
        elif self.milvus_uri or self.milvus_token:
            name = "--milvus-uri" if self.milvus_uri else "--milvus-token"
            raise SettingsError(
                f"{name} is of another backend than {self.backend}; add --backend milvus, or leave "
                "it out"
            )


class ShardSettings(SnapshotSettings):
    """Settings of a shard server."""

    section: ClassVar[str] = "shard"

    shard: str = Field(
        "", description="Numbers of the shards to hold, separated by commas; empty: all."
    )

    embedding: str = Field(
        "",
        description="Embedding services, host:port separated by commas: they embed changes that "
        "came without vectors of a snapshot's model. Empty: such changes cannot be applied.",
    )
    allow_stale: bool = Field(
        False,
        description="Serve without the live changes that cannot be had, while the change log is "
        "away or lost, and say so in every answer.",
    )

    def numbers(self) -> frozenset[int] | None:
        """Returns the shards to hold; None: all.

        Raises: SettingsError: not numbers in 0..63.
        """
        parts = [part.strip() for part in self.shard.split(",")] if self.shard.strip() else []
        for part in parts:
            if not (part.isascii() and part.isdigit() and int(part) < PARTITIONS):
                raise SettingsError(
                    f"--shard {self.shard!r} is not a list of shard numbers; write 0..63, "
                    "separated by commas"
                )
        return frozenset(map(int, parts)) or None
