"""Settings of the maintenance of change logs, section `upkeep`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nearline.settings import ServerSettings


class UpkeepSettings(ServerSettings):
    """Settings of the maintenance of change logs; its port answers only gRPC health checks."""

    section: ClassVar[str] = "upkeep"

    store: str = Field(
        ".nearline/store", description="Store of the snapshots; see section index_builder."
    )
    collections: str = Field("", description="Collections, separated by commas; empty: all.")
    redis: str = Field(
        "", description="Redis that holds the change logs, redis://host:port/0; required."
    )
    redis_users: str = Field(
        "", description="Redis that holds users and sessions, if not the one in `redis`."
    )
    embedding: str = Field(
        "",
        description="Embedding services, host:port separated by commas; required for collections "
        "with a model. For each collection, the services with its model share the work.",
    )
    every_s: float = Field(60.0, gt=0, le=86_400, description="Seconds between rounds.")
    share: float = Field(
        0.2, ge=0, description="Compact once changes exceed this share of the documents."
    )
    age: str = Field(
        "24h", description="Compact once the oldest change is older than this: 90s, 15m, 24h, 7d."
    )
    log_bytes: int = Field(
        128 << 20,
        ge=1 << 20,
        description="Compact once the change log takes more than this of the memory of Redis.",
    )
    compact: bool = Field(
        True, description="Compact change logs; if disabled, they are only archived and trimmed."
    )
    releases: str = Field(
        "auto",
        pattern="^(off|propose|auto)$",
        description="What happens when requests drift or trained models are behind. off: nothing. "
        "auto: builds a snapshot that serves once it passes the release gate and, with "
        "`retrieval`, a trial on a share of the requests. propose: builds it; you promote it.",
    )
    first_training: int = Field(
        1_000,
        ge=0,
        description="Train models for the first time once this many interactions were recorded; 0: "
        "never. The snapshot is promoted once it passes the release gate.",
    )
    models_age: str = Field(
        "7d",
        description="Train models again once the newest interaction that they know is older than "
        "this, and newer ones were recorded. 0s: only after drift, or once twice as many "
        "interactions were recorded as they know.",
    )
    retrieval: str = Field(
        "",
        description="Router that starts trials and reports on them, for `releases` auto; empty: no "
        "trials.",
    )
    trial_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the requests that a snapshot on trial answers."
    )
    trial_age: str = Field("1h", description="Promote it no sooner than this.")
    trial_requests: int = Field(
        1_000,
        ge=1,
        description="Promote it once it has answered this many requests of that router, and "
        "`trial_age` is over.",
    )
    trial_limit: str = Field(
        "24h",
        description="Promote it by then even if it has answered fewer, unless it did harm.",
    )
    force_promote: str = Field(
        "",
        description="Reason to serve compacted snapshots even if the release gate refuses them; "
        "the reason is recorded.",
    )
    keep: int = Field(
        3,
        ge=0,
        description="Newest snapshots to keep, in addition to the one in service, the rollback "
        "target and what is proposed. A snapshot holds up the change log, which keeps what it "
        "lacks: while the log takes more than `log_bytes`, none of these is kept.",
    )
    keep_age: str = Field(
        "1h",
        description="Remove no snapshot younger than this: a build may be about to promote it.",
    )
    device: str = Field(
        "auto",
        description="Device that trains and builds indexes: auto, cpu, cuda or cuda:N. auto: the "
        "first GPU, if the installed FAISS can use one; otherwise the CPU.",
    )
    golden_queries: int = Field(
        200,
        description="Number of sampled queries whose exact results are stored, to measure recall.",
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads for indexing; 0: all cores.")
    work_dir: str = Field(
        "", description="Folder for the state of an interrupted run; empty: in the store."
    )

    def collection_names(self) -> list[str]:
        """Returns the names of the collections; empty means all."""
        return [name for name in (part.strip() for part in self.collections.split(",")) if name]
