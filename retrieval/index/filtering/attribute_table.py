"""The attributes of a shard as Arrow columns, on which filters are evaluated.

The file has one record per document, in the order of `items.arrow`, and one column per attribute of
the manifest: string, int64, double, bool, timestamp[us, UTC], or a list of one of these; null if
the document has no value. The builder guarantees that all values have the kind of their column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearline import filters as f
from nearline.contract import AttributeValue, Scalar
from nearline.errors import SnapshotCorrupt, Unsupported
from nearline.filters import Filter, FilterValue
from nearline.times import from_us
from nearline.v1 import snapshot_pb2
from retrieval.index.filtering.numeric_bounds import Bound, bounds_of, equal_values
from retrieval.index.filtering.validation import check_kinds, unknown_attribute_error
from retrieval.protocols.compute_threads import check_needed
from retrieval.protocols.shard import FieldCounts

ATTRIBUTES_FILE = "attributes.arrow"
_Kind = snapshot_pb2.AttributeField.Kind
_KINDS: dict[_Kind, tuple[str, Any]] = {
    snapshot_pb2.AttributeField.KIND_STRING: ("string", pa.string()),
    snapshot_pb2.AttributeField.KIND_INT: ("int", pa.int64()),
    snapshot_pb2.AttributeField.KIND_DOUBLE: ("double", pa.float64()),
    snapshot_pb2.AttributeField.KIND_BOOL: ("bool", pa.bool_()),
    snapshot_pb2.AttributeField.KIND_TIME: ("time", pa.timestamp("us", "UTC")),
}


def attributes_schema(fields: Sequence[snapshot_pb2.AttributeField]) -> pa.Schema:
    """Returns the columns of an attributes file."""
    return pa.schema([(field.name, _column_type(field)) for field in fields])


def _column_type(field: snapshot_pb2.AttributeField) -> Any:
    _, element = _KINDS[field.kind]
    return pa.list_(element) if field.is_list else element


TextMatches = Callable[[f.TextCondition], NDArray[np.bool_]]


def without_texts(condition: f.TextCondition) -> NDArray[np.bool_]:
    """Raises Unsupported: what tests conditions on texts where there is no word index."""
    raise Unsupported(
        f"the filter has a condition on texts ({type(condition).__name__}), but the collection has "
        "no lexical index; build it from texts, without --no-lexical",
        field="options.filter",
    )


class _Column(NamedTuple):
    """An attribute. kind: As named by `kind_of`. type: Type of its values, or of list elements."""

    kind: str
    type: Any
    is_list: bool
    data: pa.ChunkedArray


class AttributeTable:
    """The attributes of the documents of one shard.

    Args:
        table: A column of the right kind for each field; other columns are ignored.
        fields: The attributes in the manifest.
        documents: Required number of records, if there are fields.
    Raises: ValueError: another number of records, or a column of another kind. KeyError: a column
        is missing.
    """

    def __init__(
        self, table: pa.Table, fields: Sequence[snapshot_pb2.AttributeField], documents: int
    ) -> None:
        self._documents = documents
        self._columns: dict[str, _Column] = {}
        if fields and table.num_rows != documents:
            raise ValueError(f"{table.num_rows} records, expected {documents}")
        for field in fields:
            kind, element = _KINDS[field.kind]
            data = table.column(field.name)
            expected = _column_type(field)
            if data.type != expected:
                raise ValueError(f"{field.name!r} has type {data.type}, expected {expected}")
            self._columns[field.name] = _Column(kind, element, field.is_list, data)
        self._kinds = {name: column.kind for name, column in self._columns.items()}

    @classmethod
    def load(
        cls, path: Path, fields: Sequence[snapshot_pb2.AttributeField], documents: int
    ) -> AttributeTable:
        """Maps a file.

        Args:
            path: The Arrow file; it must not change while it is mapped. Not read if there are no
                fields.
            fields, documents: See the class.
        Raises: SnapshotCorrupt: the file is not a valid attributes file.
        """
        if not fields:
            return cls(pa.table({}), fields, documents)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            return cls(table, fields, documents)
        except (ValueError, KeyError, OSError) as error:
            raise SnapshotCorrupt(
                f"{path} is not a readable attributes file ({error}); rebuild the snapshot"
            ) from error

    def check(self, filter: Filter) -> None:
        """Checks that a filter names existing attributes and values of their kind.

        Raises: InvalidRequest: names the most similar and all other attributes, or both kinds.
        """
        check_kinds(filter, self._kinds)

    def matching(self, filter: Filter, of_text: TextMatches = without_texts) -> NDArray[np.bool_]:
        """Returns which documents match: (documents,) bool; see `nearline.filters`.

        Args:
            filter: The filter.
            of_text: Returns which documents meet a condition on texts.
        Raises: InvalidRequest: as `check`. Unsupported: there are no texts to test.
        """
        self.check(filter)
        return self._matching(filter, of_text)

    def first_values(self, field: str, documents: NDArray[np.int64]) -> list[Scalar]:
        """Returns the value of an attribute in each document; for lists, the first element.

        Args:
            field: Name.
            documents: (n,) document numbers.
        Returns: n values; None for documents without one.
        Raises: InvalidRequest: the attribute does not exist.
        """
        values = self._values(self._column(field, "options.grouping.field"), documents)
        return [
            (value[0] if value else None) if isinstance(value, list) else value for value in values
        ]

    def values(self, field: str, documents: NDArray[np.int64]) -> list[AttributeValue]:
        """Returns the value of an attribute in each document, a list of lists.

        Args:
            field: Name.
            documents: (n,) document numbers.
        Returns: n values; None for documents without one.
        Raises: InvalidRequest: the attribute does not exist.
        """
        return self._values(self._column(field, "options.boosts.field"), documents)

    def counts(self, field: str, matching: NDArray[np.bool_]) -> FieldCounts:
        """Counts the values of an attribute among documents.

        Args:
            field: Name.
            matching: (documents,) bool, the documents to count.
        Returns: The number of documents per value, where a list counts once for each distinct
            element; and the number of documents without a value.
        Raises: InvalidRequest: the attribute does not exist.
        """
        column = self._column(field, "facets.field")
        counted: Counter[Scalar] = Counter()
        missing = 0
        at = 0
        for chunk in column.data.chunks:
            values = chunk.filter(pa.array(matching[at : at + len(chunk)]))
            at += len(chunk)
            if column.is_list:
                missing += int(
                    (pc.fill_null(pc.list_value_length(values), 0).to_numpy() == 0).sum()
                )
                found = _count_elements(values)
            else:
                missing += values.null_count
                entries = pc.value_counts(values.drop_null())
                found = zip(*(part.to_pylist() for part in entries.flatten()), strict=True)
            for value, count in found:
                counted[_python(column, value)] += count
        return FieldCounts(counted, missing)

    def most_values(self, field: str, matching: NDArray[np.bool_]) -> int:
        """Returns how many values an attribute has among documents; of lists, all elements count.

        Args:
            field: Name.
            matching: (documents,) bool.
        Raises: InvalidRequest: the attribute does not exist.
        """
        column = self._column(field, "options.grouping.field")
        values = column.data.filter(pa.array(matching))
        return int(pc.count_distinct(pc.list_flatten(values) if column.is_list else values).as_py())

    def _values(self, column: _Column, documents: NDArray[np.int64]) -> list[Any]:
        taken = column.data.take(pa.array(documents, pa.int64()))
        if column.kind != "time":
            return taken.to_pylist()  # type: ignore[no-any-return]
        # Ten times as fast as the times that Arrow makes.
        numbers: list[Any] = taken.cast(
            pa.list_(pa.int64()) if column.is_list else pa.int64()
        ).to_pylist()
        return [
            list(map(_time, value)) if isinstance(value, list) else _time(value)
            for value in numbers
        ]

    def _column(self, name: str, request_field: str) -> _Column:
        column = self._columns.get(name)
        if column is None:
            raise unknown_attribute_error(name, list(self._columns), request_field)
        return column

    def _matching(self, filter: Filter, of_text: TextMatches) -> NDArray[np.bool_]:
        check_needed()
        match filter:
            case f.All(parts):
                matches = np.ones(self._documents, np.bool_)
                for part in parts:
                    matches &= self._matching(part, of_text)
                return matches
            case f.Any(parts):
                matches = np.zeros(self._documents, np.bool_)
                for part in parts:
                    matches |= self._matching(part, of_text)
                return matches
            case f.Not(part):
                return ~self._matching(part, of_text)
            case f.Words() | f.Phrase():
                return of_text(filter)
        column = self._columns[filter.field]
        if isinstance(filter, f.Exists):
            tested = [chunk.is_valid() for chunk in column.data.chunks]
        else:
            tested = [_test(column, chunk, filter) for chunk in column.data.chunks]
        return np.concatenate(
            [np.empty(0, np.bool_), *(part.to_numpy(zero_copy_only=False) for part in tested)]
        )


def _test(column: _Column, chunk: pa.Array, condition: f.Equals | f.In | f.Range) -> pa.Array:
    """Returns whether the value (or any element) of each record meets a condition."""
    elements = chunk.flatten() if column.is_list else chunk
    match condition:
        case f.Range():
            hits = _within(elements, bounds_of(condition, column.kind), column.type)
        case f.Equals(_, value):
            hits = _among(elements, equal_values((value,), column.kind), column.type)
        case f.In(_, values):
            hits = _among(elements, equal_values(values, column.kind), column.type)
        case _:
            assert_never(condition)
    if not column.is_list:
        return hits
    found = np.zeros(len(chunk), np.bool_)
    parents = pc.list_parent_indices(chunk).to_numpy()
    found[parents[hits.to_numpy(zero_copy_only=False)]] = True
    return pa.array(found)


def _among(values: pa.Array, wanted: Sequence[FilterValue], kind: Any) -> pa.Array:
    if len(wanted) == 1:
        return pc.fill_null(pc.equal(values, pa.scalar(wanted[0], kind)), False)
    return pc.is_in(values, value_set=pa.array(wanted, kind))


def _within(values: pa.Array, bounds: Sequence[Bound] | None, kind: Any) -> pa.Array:
    if bounds is None:
        return pa.array(np.zeros(len(values), np.bool_))
    # NaN fails every comparison; if there is no bound, every value matches.
    hits = values.is_valid()
    for bound in bounds:
        compare = getattr(pc, bound.comparison)
        hits = pc.and_(hits, pc.fill_null(compare(values, pa.scalar(bound.value, kind)), False))
    return hits


def _count_elements(lists: pa.Array) -> Iterable[tuple[Any, int]]:
    """Returns each element with the number of lists that contain it."""
    encoded = lists.flatten().dictionary_encode()
    distinct = len(encoded.dictionary)
    if distinct == 0:
        return ()
    # One number per pair of list and element, so that duplicates in a list count once.
    parents = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    pairs = np.unique(parents * distinct + encoded.indices.to_numpy())
    counts = np.bincount(pairs % distinct, minlength=distinct)
    return zip(encoded.dictionary.to_pylist(), counts.tolist(), strict=True)


def _time(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _python(column: _Column, value: Any) -> Scalar:
    """Returns a Python value; times are in UTC, as everywhere in Nearline."""
    scalar: Scalar = value
    if column.kind == "time" and value is not None:
        return value.astimezone(UTC)  # type: ignore[no-any-return]
    return scalar
