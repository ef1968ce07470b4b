"""Judged queries, kept in the store for the gate.

Layout: <store>/<collection>/gate/judgements/<sha256>.json: {"queries": {id: text}, "judgements":
    {query id: {document id: grade}}}. The name is the SHA-256 of the bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from typing import NamedTuple

from index_builder.evaluation.retrieval_metrics import JudgedDataset, Judgements
from nearline.errors import AlreadyExists, SnapshotCorrupt
from nearline.store.snapshot import Store, check_collection

_SHA256 = re.compile(r"[0-9a-f]{64}")


class JudgedQueries(NamedTuple):
    """Query texts by id, and grades of documents by query id."""

    queries: dict[str, str]
    judgements: Judgements


def keep_judgements(store: Store, collection: str, found: JudgedDataset) -> str:
    """Stores the queries and judgements of a data set; returns the SHA-256 that names them."""
    content = {
        "queries": dict(found.queries),
        "judgements": {query: dict(grades) for query, grades in found.judgements.items()},
    }
    data = json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    with contextlib.suppress(AlreadyExists):
        store.files.create(_path(collection, digest), data)
    return digest


def read_judgements(store: Store, collection: str, digest: str) -> JudgedQueries:
    """Reads stored judgements.

    Raises: NotFound. SnapshotCorrupt: the content does not match its name.
    """
    if not _SHA256.fullmatch(digest):
        raise SnapshotCorrupt(
            f"the thresholds of {collection!r} name judgements {digest!r}, which is no SHA-256; "
            "set them again with nearline gate set --labels DIR"
        )
    path = _path(collection, digest)
    data = store.files.read(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise SnapshotCorrupt(
            f"{store.url}/{path} does not match its name; set the judgements again with nearline "
            "gate set --labels DIR"
        )
    content = json.loads(data)
    return JudgedQueries(content["queries"], content["judgements"])


def _path(collection: str, digest: str) -> str:
    return f"{check_collection(collection)}/gate/judgements/{digest}.json"
