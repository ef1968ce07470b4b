"""Rows of a machine whose costs are known."""

from __future__ import annotations

import itertools
import math

from benchmarks.scaling_parts.measured_rows import Row

# A search takes the router 400 us and 20 for each shard; a shard takes 100, and 0.5 for each step
# of the graph. A shard process holds 200 MB, and 2 kB for each vector.
EF = 20


def search_row(vectors: int, shards: int, callers: int) -> Row:
    steps = shards * EF * math.log2(vectors / shards)
    return {
        "kind": "searches",
        "vectors": vectors,
        "dim": 384,
        "index": "HNSW32,Flat",
        "shards": shards,
        "layout": "separate",
        "callers": callers,
        "ef": EF,
        "p99_ms": 10.0 / shards,
        "router_us": 400.0 + 20 * shards,
        "shards_us": 100 * shards + 0.5 * steps,
        "router_rss_bytes": 100e6,
        "shards_rss_bytes": 200e6 * shards + 2e3 * vectors,
        "shards_file_bytes": 1.8e3 * vectors,
    }


def search_rows() -> list[Row]:
    sizes = itertools.product((50_000, 200_000, 1_000_000), (1, 4), (1, 8))
    return [search_row(*one) for one in sizes]


def list_row(items: int, users: int, shards: int, path: str) -> Row:
    """A cold list takes the router 3,000 us, its shards 1,000 each, and Redis 100."""
    cold = path == "cold"
    return {
        "kind": "lists",
        "items": items,
        "users": users,
        "shards": shards,
        "path": path,
        "p99_ms": 20.0,
        "router_us": 3_000.0 if cold else 500.0,
        "shards_us": 1_000.0 * shards if cold else 0.0,
        "redis_us": 100.0,
        "router_rss_bytes": 150e6,
        "shards_rss_bytes": 300e6,
        "snapshot_bytes": 5e3 * items + 400 * users,
    }


def list_rows(users: tuple[int, ...]) -> list[Row]:
    sizes = itertools.product((50_000, 200_000), users, (1, 4), ("cold", "hot"))
    return [list_row(*one) for one in sizes]


def redis_row(users: int) -> Row:
    return {"kind": "redis", "users": users, "redis_bytes": 500 * users}
