"""Validates items from requests and converts them into changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from nearline.contract import (
    MAX_KEY_BYTES,
    Attributes,
    AttributeValue,
    Item,
)
from nearline.errors import InvalidRequest
from nearline.items.attributes import check_numbers, clean, encode, flatten
from nearline.items.documents import (
    check_id,
    check_text_bytes,
    check_unicode,
    clean_document,
    clean_vector,
    document_spans,
)
from nearline.items.sizes import check_sizes
from nearline.times import in_utc
from nearline.wire.limits import BATCH, check_count
from retrieval.changelog.records import OWN_VECTORS, Change, ChangeKind
from retrieval.search.collection import ServedCollection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Submission times come from the clock of Redis, like those of the log, which may be well ahead of
# the clock of this machine. Only times that no clock explains are refused.
_CLOCKS_DIFFER = timedelta(days=1)


def check_request(
    ids: Sequence[str], if_versions: Mapping[str, int], idempotency_key: str, field: str
) -> None:
    """Checks the parts of a request that concern it as a whole.

    Args:
        ids: Ids of its items.
        if_versions, idempotency_key: As in the request.
        field: Name of the field with the items, for errors.
    Raises: InvalidRequest: No or too many items, a repeated id, a version of an item that is not in
        the request, or a key that is too long.
    """
    check_count(len(ids), field, BATCH)
    seen: set[str] = set()
    for document_id in ids:
        if document_id in seen:
            raise InvalidRequest(
                f"{field} has item {document_id!r} twice; send only the newer one", field=field
            )
        seen.add(document_id)
    for document_id, version in if_versions.items():
        if document_id not in seen:
            raise InvalidRequest(
                f"if_versions names item {document_id!r}, which is not in {field}; remove it",
                field="if_versions",
            )
        if version < 0:
            raise InvalidRequest(
                f"if_versions has {version} for {document_id!r}; use 0 or the version from "
                "Item.version",
                field="if_versions",
            )
    check_text_bytes(idempotency_key, "idempotency_key", MAX_KEY_BYTES)


def check_times(ids: Sequence[str], as_of: Mapping[str, datetime], *, whole: bool) -> None:
    """Checks the submission times of a request.

    Args:
        ids: Ids of its items.
        as_of: As in the request.
        whole: Whether the request has whole items; changes of attributes have no submission time.
    Raises: InvalidRequest: A time of an item that is not in the request, a time before 1970 or in
        the future, or any time although the request has no whole items.
    """
    if as_of and not whole:
        raise InvalidRequest(
            "as_of requires whole items; remove it, or unset only_attributes", field="as_of"
        )
    now = datetime.now(UTC)
    known = set(ids)
    for document_id, time in as_of.items():
        if document_id not in known:
            raise InvalidRequest(
                f"as_of names item {document_id!r}, which is not in items; remove it",
                field="as_of",
            )
        if not _EPOCH <= in_utc(time) <= now + _CLOCKS_DIFFER:
            raise InvalidRequest(
                f"as_of of {document_id!r} is {time.isoformat()}; use the time at which the item "
                f"was submitted, between 1970 and now, {now.isoformat(timespec='seconds')} on this "
                "machine",
                field="as_of",
            )


def upsert_change(item: Item, served: ServedCollection) -> Change:
    """Returns the change that adds or replaces an item, without vectors from a model.

    Raises: InvalidRequest: See `check_sizes`, `check_numbers` and `clean_document`; also if an
        attribute has the wrong kind, the item has a vector although a model embeds it, or it has no
        vector although no model does.
    """
    check_sizes(item)
    check_numbers(item.attributes)
    clean_item = clean_document(item, served.attribute_kinds, title_only=True)
    _check_lists(clean_item.attributes, served)
    vectors = {}
    if served.has_model:
        if item.vector is not None:
            raise InvalidRequest(
                f"collection {served.name!r} embeds texts with model {served.fingerprint}; remove "
                "the vector"
            )
    elif item.vector is None:
        raise InvalidRequest(
            f"collection {served.name!r} has no model; send a vector of {served.dim} numbers with "
            "each item"
        )
    else:
        own = clean_vector(item.vector, served.dim, unit_length=served.unit_length)
        vectors[OWN_VECTORS] = own[None]
    cut = document_spans(clean_item, served.chunking.max_tokens, served.chunking.overlap_sentences)
    return Change(
        document_id=item.id,
        kind=ChangeKind.UPSERT,
        title=item.title,
        text=item.text,
        attributes=clean_item.attributes,
        bounds=np.array(cut, np.int64).reshape(-1, 2),
        vectors=vectors,
        expires=None if item.expires is None else in_utc(item.expires),
    )


def attributes_change(item: Item, served: ServedCollection) -> Change:
    """Returns the change that sets attributes, and removes those without a value.

    Raises: InvalidRequest: The item has no attribute, an attribute of the wrong kind, a number that
        is not finite, or anything other than attributes.
    """
    check_id(item.id)
    other_parts = {
        "a title": item.title,
        "a text": item.text,
        "a vector": item.vector is not None,
        "an expiry": item.expires is not None,
    }
    extra = [name for name, is_set in other_parts.items() if is_set]
    if extra:
        raise InvalidRequest(
            f"only_attributes is set, but the item has {' and '.join(extra)}; remove that, or send "
            "the whole item without only_attributes"
        )
    check_sizes(item)
    check_numbers(item.attributes)
    attributes: dict[str, AttributeValue] = {}
    for name, value in item.attributes.items():
        for flat_name, flat in flatten(name, value):
            kept = clean({flat_name: flat}, served.attribute_kinds)
            # An empty value removes the attribute.
            attributes[flat_name] = kept.get(flat_name)
    if not attributes:
        raise InvalidRequest("the item has no attribute to set or to remove")
    check_unicode(encode(attributes))
    _check_lists(attributes, served)
    return Change(document_id=item.id, kind=ChangeKind.ATTRIBUTES, attributes=attributes)


def delete_change(document_id: str) -> Change:
    """Returns the change that deletes an item.

    Raises: InvalidRequest: The id is invalid.
    """
    check_id(document_id)
    return Change(document_id=document_id, kind=ChangeKind.DELETE)


def valid_ids(ids: Collection[str]) -> list[str]:
    """Returns those ids that are valid."""

    def is_valid(document_id: str) -> bool:
        try:
            check_id(document_id)
        except InvalidRequest:
            return False
        return True

    return [one for one in ids if is_valid(one)]


def _check_lists(attributes: Attributes, served: ServedCollection) -> None:
    for name, value in attributes.items():
        if isinstance(value, list) and name in served.single_valued:
            raise InvalidRequest(
                f"attribute {name!r} is a list, but has single values in collection "
                f"{served.name!r}; send one value, or build a snapshot whose items have lists of it"
            )
