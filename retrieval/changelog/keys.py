"""The names under which a change log lies in Redis.

Keys of one partition carry one hash tag, so that they share a slot of a Redis Cluster and one
script may look at them together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class PartitionKeys(NamedTuple):
    """Keys of one partition.

    meta: Hash: log (its id), seq (last number), trimmed, nonce and time (of the last entry).
    log: Stream of the entries; each has the id <number>-0.
    versions: Hash by document id: the version; negative where that change deleted the item.
    prefix: What all names begin with.
    """

    meta: str
    log: str
    versions: str
    prefix: str

    def done(self, log_id: str, idempotency_key: str) -> str:
        """Names the string that holds what became of a request's part: digest and results."""
        return f"{self.prefix}:done:{log_id}:{idempotency_key}"

    def asked(self, log_id: str, idempotency_key: str) -> str:
        """Names the string that holds the digest of the request that used a key first."""
        return f"{self.prefix}:asked:{log_id}:{idempotency_key}"


@lru_cache(65_536)
def partition_keys(collection: str, partition: int) -> PartitionKeys:
    """Returns the keys of a partition, 0..63."""
    prefix = f"nl:{{{collection}/{partition:02d}}}"
    return PartitionKeys(f"{prefix}:meta", f"{prefix}:log", f"{prefix}:versions", prefix)
