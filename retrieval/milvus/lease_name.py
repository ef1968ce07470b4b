"""The name of the lease to write live changes into a Milvus collection."""

from __future__ import annotations


def lease_name(collection: str, milvus_collection: str, started_us: int) -> str:
    """Returns the name of the lock; exports of one snapshot to two servers have different names.

    Args:
        collection: Collection name.
        milvus_collection: Name of the Milvus collection.
        started_us: Start of the export, microseconds since 1970.
    """
    return f"nl:{{{collection}}}:milvus:{milvus_collection}:{started_us}"
