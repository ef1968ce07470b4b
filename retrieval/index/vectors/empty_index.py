"""The file of an index without vectors."""

from __future__ import annotations

from pathlib import Path

import faiss


def write_empty_index(path: Path, dim: int) -> str:
    """Writes an index file without vectors.

    Returns: The version of faiss, for the manifest.
    Raises: OSError: no space, no permission.
    """
    path.write_bytes(faiss.serialize_index(faiss.IndexFlatIP(dim)).tobytes())
    version: str = faiss.__version__
    return version
