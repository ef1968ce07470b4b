"""A collection as the router serves it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import (
    MAX_GROUP_SIZE,
    MAX_QUERY_CHARACTERS,
    Coverage,
    Query,
    SearchMode,
    SearchOptions,
    Term,
)
from nearline.errors import InvalidRequest, SnapshotGone, Unsupported
from nearline.snapshot import KIND_NAMES
from nearline.vectors import as_matrix
from retrieval.behaviour.model import BehaviourModel
from retrieval.changelog.start_position import watermark_of
from retrieval.protocols import metrics
from retrieval.protocols.shard import Shard
from retrieval.protocols.snapshot import COSINE, SnapshotRef
from retrieval.protocols.suggestions import suggest_names
from retrieval.search.fusion import FusionParams

MAX_EF_SEARCH = 4_096
MAX_NPROBE = 65_536
# A vector whose squared length is half of this away from 1 is as near to unit length as float32
# brings it.
_UNIT_SLACK = 2e-6


class ServedCollection:
    """One collection: the snapshot in force, its shards, and what a request must fit.

    Args:
        snapshot: What the alias named.
        shards: By number, 0..n-1.
        learned: What the snapshot learned from interactions; None: nothing.

    attribute_kinds: Of `nearline.attributes.KINDS`, by name. single_valued: Attributes without
    lists. approximate: Its index may miss some of what is best. watermark: How far the snapshot has
    the changes of its log.
    """

    def __init__(
        self,
        snapshot: SnapshotRef,
        shards: Sequence[Shard],
        learned: BehaviourModel | None = None,
    ) -> None:
        manifest = snapshot.manifest
        self.learned = learned
        self.name = snapshot.collection
        self.epoch = snapshot.epoch
        self.snapshot_id = snapshot.snapshot_id
        self.fingerprint = manifest.embedder.fingerprint
        self.dim = manifest.dim
        self.documents = manifest.documents
        self.chunks = manifest.chunks
        self.unit_length = manifest.metric == COSINE
        self.has_words = manifest.HasField("lexical")
        # A Milvus may not be able to search by words; texts are looked for by vector alone then.
        self.words_by_default = self.has_words and all(shard.has_words for shard in shards)
        self.language = manifest.lexical.language
        self._words_of = manifest.lexical.chunks
        self.has_model = bool(self.fingerprint)
        # Any other index compares every vector, so that nothing is missed.
        self.approximate = any(name in manifest.index_factory for name in ("HNSW", "IVF", "NSG"))
        self.fusion = FusionParams.of(manifest)
        self.chunking = manifest.chunking
        self.watermark = watermark_of(manifest)
        self._attributes = {one.name: one for one in manifest.attributes}
        self.attribute_kinds = {
            one.name: KIND_NAMES[one.kind] for one in manifest.attributes if one.kind in KIND_NAMES
        }
        self.single_valued = frozenset(one.name for one in manifest.attributes if not one.is_list)
        self.shards = tuple(shards)
        self.observe_search = metrics.stage_seconds.labels(self.name, "search").observe
        self._all = Coverage(shards_answered=len(shards), shards_total=len(shards))

    def coverage(self, failures: Mapping[int, object]) -> Coverage:
        """Returns the coverage of an answer without these shards."""
        if not failures:
            return self._all
        total = len(self.shards)
        return Coverage(
            shards_answered=total - len(failures),
            shards_total=total,
            missing_shards=tuple(sorted(failures)),
        )

    def terms(self, found: Sequence[tuple[str, int]]) -> Sequence[Term]:
        """Returns the words of a query with what each tells, from how many chunks have it."""
        return [
            Term(word, n, math.log1p((self._words_of - n + 0.5) / (n + 0.5))) for word, n in found
        ]

    async def ready_replicas(self) -> list[int]:
        """Counts the replicas of each shard that answer now."""
        return [int(await shard.ready(self.snapshot_id)) for shard in self.shards]

    def check(self, options: SearchOptions) -> None:
        """Raises InvalidRequest, Unsupported or SnapshotGone where options cannot be served."""
        if options.ef_search is not None and not 1 <= options.ef_search <= MAX_EF_SEARCH:
            raise _out_of_range("ef_search", options.ef_search, MAX_EF_SEARCH)
        if options.nprobe is not None and not 1 <= options.nprobe <= MAX_NPROBE:
            raise _out_of_range("nprobe", options.nprobe, MAX_NPROBE)
        if options.mode in (SearchMode.LEXICAL, SearchMode.HYBRID) and not self.has_words:
            raise Unsupported(
                f"snapshot {self.snapshot_id} of {self.name!r} has no lexical index, so mode "
                f"{options.mode.value} cannot be served; use mode dense",
                field="options.mode",
            )
        for name in ("diversity", "dense_weight"):
            value = getattr(options, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidRequest(f"{name} is {value}; 0..1 is allowed", field=f"options.{name}")
        if options.min_score is not None and not math.isfinite(options.min_score):
            raise InvalidRequest(
                "min_score is no number; leave it unset", field="options.min_score"
            )
        if options.grouping is not None:
            self._check_grouping(options)
        if options.snapshot_id and options.snapshot_id != self.snapshot_id:
            raise SnapshotGone(
                f"snapshot {options.snapshot_id} of {self.name!r} is not loaded, "
                f"{self.snapshot_id} is; retry the whole request without options.snapshot_id",
                field="options.snapshot_id",
            )

    def _check_grouping(self, options: SearchOptions) -> None:
        grouping = options.grouping
        assert grouping is not None
        if not 1 <= grouping.size <= MAX_GROUP_SIZE:
            raise _out_of_range("grouping.size", grouping.size, MAX_GROUP_SIZE)
        if options.diversity:
            raise InvalidRequest(
                "grouping and diversity exclude each other; leave one of them unset",
                field="options.diversity",
            )
        known = self._attributes.get(grouping.field)
        if known is None or known.is_list:
            usable = [name for name, one in self._attributes.items() if not one.is_list]
            what = "holds lists" if known is not None else "is no attribute of the collection"
            raise InvalidRequest(
                f"grouping.field {grouping.field!r} {what}; nearest first, there are: "
                f"{suggest_names(grouping.field, usable)}",
                field="options.grouping.field",
            )

    def check_model(self, field: str) -> None:
        """Raises InvalidRequest where no model can embed a text for the collection."""
        if not self.fingerprint:
            raise InvalidRequest(
                f"collection {self.name!r} holds vectors that its user brought, so no model can "
                "embed a text for it; send a vector or item ids",
                field=f"{field}.text",
            )

    def vector(self, query: Query, field: str) -> NDArray[np.float32]:
        """Returns the vector of a vector query: (1, d) float32, checked.

        Raises: InvalidRequest: another dim (names both), more than one row, NaN or infinity.
        """
        vector = query.vector
        assert vector is not None
        if vector.dtype == np.float32 and vector.shape == (self.dim,):
            # What almost every request brings; `aligned` finds numbers that are not finite.
            return np.ascontiguousarray(vector).reshape(1, -1)
        matrix = as_matrix(vector, f"{field}.vector")
        rows, dim = matrix.shape
        if rows != 1:
            raise InvalidRequest(
                f"{field}.vector has {rows} rows; send one, or use SearchBatch",
                field=f"{field}.vector",
            )
        if dim != self.dim:
            made_by = f", made by model {self.fingerprint}" if self.fingerprint else ""
            raise InvalidRequest(
                f"{field}.vector has dim {dim}, collection {self.name!r} has dim {self.dim}"
                f"{made_by}; embed the query with the collection's model",
                field=f"{field}.vector",
            )
        return matrix

    def text(self, query: Query, field: str) -> str:
        """Returns the text of a text query, checked.

        Raises: InvalidRequest: blank, or not Unicode.
        """
        text = query.text or ""
        where = f"{field}.text"
        if not text.strip():
            raise InvalidRequest(f"{where} is empty; send some words", field=where)
        if len(text) > MAX_QUERY_CHARACTERS:
            raise InvalidRequest(
                f"{where} has {len(text):,} characters; at most {MAX_QUERY_CHARACTERS:,} are "
                "allowed; search with a passage of it",
                field=where,
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{where} is not valid Unicode at character {error.start} (a lone surrogate); "
                "decode it properly before sending",
                field=where,
            ) from error
        return text

    def aligned(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scales queries to unit length where the metric is cosine.

        Args:
            matrix: (n, d) float32.
        Raises: InvalidRequest: NaN or infinity, or a row that is all zeros and has no direction.
        """
        # In float64 no finite float32 is too large or too small to square. Not a dot product: BLAS
        # releases the interpreter, and getting it back takes longer than these few numbers.
        squares = np.multiply(matrix, matrix, dtype=np.float64).sum(axis=1)
        smallest = float(squares[0]) if len(squares) == 1 else float(squares.min())
        largest = smallest if len(squares) == 1 else float(squares.max())
        if not math.isfinite(smallest + largest):
            as_matrix(matrix, "query.vector")
        if not self.unit_length or abs(smallest - 1) + abs(largest - 1) <= _UNIT_SLACK:
            return matrix
        if smallest == 0:
            raise InvalidRequest(
                f"the vector of query {int(np.flatnonzero(squares == 0)[0])} is all zeros and has "
                "no direction; leave it out",
                field="query.vector",
            )
        # Rows that need nothing stay as they are, in whatever company.
        norms = np.where(np.abs(squares - 1) <= _UNIT_SLACK / 2, 1.0, np.sqrt(squares))
        unit: NDArray[np.float32] = (matrix / norms[:, None]).astype(np.float32)
        return unit


def _out_of_range(name: str, value: int, limit: int) -> InvalidRequest:
    return InvalidRequest(f"{name} is {value}; 1..{limit} is allowed", field=f"options.{name}")
