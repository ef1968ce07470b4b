"""The Redis keys of a change log.

The keys of a partition share a hash tag, so that they are in one slot of a Redis Cluster and one
script can use them together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class PartitionKeys(NamedTuple):
    """The keys of one partition.

    meta: Hash: log (its id), seq (last number), trimmed, nonce and time (of the last entry).
    log: Stream of the entries, with ids <number>-0.
    versions: Hash from document id to version; negative if that change deleted the item.
    prefix: Common prefix of all keys.
    """

    meta: str
    log: str
    versions: str
    prefix: str

    def done(self, log_id: str, idempotency_key: str) -> str:
        """Returns the key of the result of a request in this partition: its digest and results."""
        return f"{self.prefix}:done:{log_id}:{idempotency_key}"

    def asked(self, log_id: str, idempotency_key: str) -> str:
        """Returns the key of the digest of the request that first used an idempotency key."""
        return f"{self.prefix}:asked:{log_id}:{idempotency_key}"


@lru_cache(65_536)
def partition_keys(collection: str, partition: int) -> PartitionKeys:
    """Returns the keys of a partition, 0..63."""
    prefix = f"nl:{{{collection}/{partition:02d}}}"
    return PartitionKeys(f"{prefix}:meta", f"{prefix}:log", f"{prefix}:versions", prefix)
