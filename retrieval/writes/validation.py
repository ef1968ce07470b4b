"""Items as users send them become changes; what cannot be one is refused with the remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from nearline.attributes import clean, encode, flatten
from nearline.contract import (
    MAX_BATCH,
    MAX_KEY_BYTES,
    Attributes,
    AttributeValue,
    Item,
)
from nearline.documents import (
    check_id,
    check_unicode,
    clean_document,
    clean_vector,
    document_spans,
)
from nearline.errors import InvalidRequest
from nearline.wire import in_utc
from retrieval.changelog.records import OWN_VECTORS, Change, ChangeKind
from retrieval.search.collection import ServedCollection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The log's clock may be a little ahead of this machine's.
_CLOCKS_DIFFER = timedelta(minutes=5)


def check_request(
    ids: Sequence[str], if_versions: Mapping[str, int], idempotency_key: str, field: str
) -> None:
    """Checks what makes or breaks a request as a whole.

    Args:
        ids: Of its items.
        if_versions, idempotency_key: As they came.
        field: Of the items, for errors.
    Raises: InvalidRequest: too many items or none, an id twice, a version of an item that is not
        there, or a key that is too long.
    """
    if not 1 <= len(ids) <= MAX_BATCH:
        raise InvalidRequest(
            f"{field} has {len(ids)} items; 1..{MAX_BATCH} are allowed", field=field
        )
    seen: set[str] = set()
    for document_id in ids:
        if document_id in seen:
            raise InvalidRequest(
                f"{field} has item {document_id!r} twice; send the newer one only", field=field
            )
        seen.add(document_id)
    for document_id, version in if_versions.items():
        if document_id not in seen:
            raise InvalidRequest(
                f"if_versions names item {document_id!r}, which is not in {field}; leave it out",
                field="if_versions",
            )
        if version < 0:
            raise InvalidRequest(
                f"if_versions has {version} for {document_id!r}; versions are 0 or more, as "
                "Item.version gives them",
                field="if_versions",
            )
    check_unicode(idempotency_key)
    key_bytes = len(idempotency_key.encode())
    if key_bytes > MAX_KEY_BYTES:
        raise InvalidRequest(
            f"idempotency_key has {key_bytes} bytes; at most {MAX_KEY_BYTES} are allowed: use a "
            "random one, or a hash",
            field="idempotency_key",
        )


def check_times(ids: Sequence[str], as_of: Mapping[str, datetime], *, whole: bool) -> None:
    """Checks the places in time of a request's changes.

    Args:
        ids: Of its items.
        as_of: As it came.
        whole: Whether its items are whole; attributes alone have no place but now.
    Raises: InvalidRequest: one of an item that is not there, one that is not past, or any where
        items are not whole.
    """
    if as_of and not whole:
        raise InvalidRequest(
            "as_of goes with whole items; leave it out, or leave only_attributes out", field="as_of"
        )
    latest = datetime.now(UTC) + _CLOCKS_DIFFER
    known = set(ids)
    for document_id, time in as_of.items():
        if document_id not in known:
            raise InvalidRequest(
                f"as_of names item {document_id!r}, which is not in items; leave it out",
                field="as_of",
            )
        if not _EPOCH <= in_utc(time) <= latest:
            raise InvalidRequest(
                f"as_of of {document_id!r} is {time.isoformat()}; a time between 1970 and now is "
                "needed: when the item was submitted",
                field="as_of",
            )


def upsert_change(item: Item, served: ServedCollection) -> Change:
    """Makes the change that adds or replaces an item; vectors of a model are still to come.

    Raises: InvalidRequest: see `nearline.documents.clean_document`; an attribute of another kind
        than the collection's, a vector where a model makes them, or none where none does.
    """
    clean_item = clean_document(item, served.attribute_kinds, title_only=True)
    _check_lists(clean_item.attributes, served)
    vectors = {}
    if served.has_model:
        if item.vector is not None:
            raise InvalidRequest(
                f"collection {served.name!r} embeds its texts itself, with model "
                f"{served.fingerprint}; leave the vector out"
            )
    elif item.vector is None:
        raise InvalidRequest(
            f"collection {served.name!r} holds vectors that its user brings; send one of "
            f"{served.dim} numbers"
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
    """Makes the change that sets attributes, and removes those that have no value.

    Raises: InvalidRequest: no attribute, one of another kind than the collection's, or anything
        but attributes.
    """
    check_id(item.id)
    others = {
        "a title": item.title,
        "a text": item.text,
        "a vector": item.vector is not None,
        "an expiry": item.expires is not None,
    }
    given = [name for name, there in others.items() if there]
    if given:
        raise InvalidRequest(
            f"only_attributes is set, and the item has {' and '.join(given)}; leave that out, or "
            "send the whole item without only_attributes"
        )
    attributes: dict[str, AttributeValue] = {}
    for name, value in item.attributes.items():
        for flat_name, flat in flatten(name, value):
            kept = clean({flat_name: flat}, served.attribute_kinds)
            # What leaves nothing behind (null, NaN) removes.
            attributes[flat_name] = kept.get(flat_name)
    if not attributes:
        raise InvalidRequest("the item has no attribute to set or to remove")
    check_unicode(encode(attributes))
    _check_lists(attributes, served)
    return Change(document_id=item.id, kind=ChangeKind.ATTRIBUTES, attributes=attributes)


def delete_change(document_id: str) -> Change:
    """Makes the change that deletes an item.

    Raises: InvalidRequest: no id.
    """
    check_id(document_id)
    return Change(document_id=document_id, kind=ChangeKind.DELETE)


def valid_ids(ids: Collection[str]) -> list[str]:
    """Returns the ids that an item can have."""

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
                f"attribute {name!r} is a list, and holds one value in collection "
                f"{served.name!r}; send one value, or build a snapshot whose items have lists of it"
            )
