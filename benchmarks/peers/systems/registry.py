"""All systems, in the order of tables."""

from __future__ import annotations

from benchmarks.peers.systems.chroma_server import CHROMA
from benchmarks.peers.systems.faiss_threads import FAISS
from benchmarks.peers.systems.grpc_floor import FLOOR
from benchmarks.peers.systems.lance_table import LANCEDB
from benchmarks.peers.systems.milvus_server import MILVUS
from benchmarks.peers.systems.nearline_router import EMBEDDED, SEPARATE
from benchmarks.peers.systems.pgvector_table import PGVECTOR
from benchmarks.peers.systems.redis_vectors import REDIS, REDIS_FLOAT

SYSTEMS = {
    system.name: system
    for system in (
        *(EMBEDDED, SEPARATE, FLOOR, FAISS),
        *(REDIS, REDIS_FLOAT, PGVECTOR, MILVUS, CHROMA, LANCEDB),
    )
}
# The system that others are compared with.
OURS = EMBEDDED.name
