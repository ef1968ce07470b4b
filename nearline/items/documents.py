"""Validation of documents from any source, and their division into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nearline.contract import MAX_ID_BYTES, Item
from nearline.errors import InvalidRequest
from nearline.items.attributes import clean, encode
from nearline.items.chunking import chunk_spans
from nearline.items.structure import Path, sections_at, titles
from nearline.sentences import Span, estimate_tokens
from nearline.vectors import MAX_DIM

_NONE: Mapping[str, str] = {}
# Headings that are indexed with a chunk below them, the nearest ones.
_HEADINGS_INDEXED, _HEADING_CHARACTERS = 3, 160
EMPTY_TEXT = "the text is empty"


def clean_document(
    item: Item, declared: Mapping[str, str] = _NONE, *, title_only: bool = False
) -> Item:
    """Returns a document with clean attributes.

    Args:
        item: The document as received.
        declared: Kinds of attributes; see `nearline.items.attributes.clean`.
        title_only: Accept a document with a title and no text.
    Raises: InvalidRequest: the id is missing or too long, a text is not valid Unicode, an attribute
        cannot be stored, or there is neither text nor vector.
    """
    check_id(item.id)
    attributes = clean(item.attributes, declared)
    for text in (item.title, item.text, encode(attributes)):
        check_unicode(text)
    if not item.text.strip() and item.vector is None:
        if not title_only:
            raise InvalidRequest(EMPTY_TEXT)
        if not item.title.strip():
            raise InvalidRequest("text and title are empty")
    return Item(
        id=item.id,
        title=item.title,
        text=item.text,
        attributes=attributes,
        vector=item.vector,
        expires=item.expires,
    )


def check_id(document_id: str) -> None:
    """Raises InvalidRequest if an id is empty, too long, or not valid Unicode."""
    if not document_id:
        raise InvalidRequest("the id is empty")
    check_unicode(document_id)
    id_bytes = len(document_id.encode())
    if id_bytes > MAX_ID_BYTES:
        raise InvalidRequest(f"the id has {id_bytes} bytes, {MAX_ID_BYTES} are allowed")


def check_unicode(text: str) -> None:
    """Raises InvalidRequest if a text cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"a text holds half a surrogate pair (\\u{ord(error.object[error.start]):04x}) and "
            "is not valid Unicode"
        ) from error


def check_text_bytes(text: str, field: str, most: int, least: int = 0) -> None:
    """Raises InvalidRequest, naming the field, unless a text has `least` to `most` bytes in
    UTF-8.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} has half a surrogate pair and is not valid Unicode; send whole characters",
            field=field,
        ) from error
    if not least <= size <= most:
        raise InvalidRequest(f"{field} has {size} bytes; {least}..{most} are allowed", field=field)


def clean_vector(
    vector: NDArray[np.float32], dim: int, *, unit_length: bool
) -> NDArray[np.float32]:
    """Returns a user's vector as the collection stores it: (d,) float32.

    Args:
        vector: The vector as received.
        dim: Required dimension; 0 accepts any.
        unit_length: Scale it to unit length (metric cosine).
    Raises: InvalidRequest: the shape is wrong, a number is not finite, or all numbers are zero.
    """
    with np.errstate(over="ignore"):
        # A float64 beyond the range of float32 becomes infinite and is refused below.
        vector = np.asarray(vector, np.float32)
    if vector.ndim != 1 or not 1 <= vector.size <= MAX_DIM:
        raise InvalidRequest(
            f"the vector has shape {vector.shape}; (d,) with d in 1..{MAX_DIM} is needed"
        )
    if dim and vector.size != dim:
        raise InvalidRequest(f"the vector has {vector.size} numbers, {dim} are needed")
    # In float64, where no sum of squares of finite float32 numbers overflows.
    norm = math.sqrt(float(np.square(vector, dtype=np.float64).sum()))
    if not math.isfinite(norm):
        raise InvalidRequest("the vector has a NaN or infinite number")
    if not unit_length:
        return vector
    if norm == 0:
        raise InvalidRequest("the vector is all zeros and has no direction")
    return (vector / norm).astype(np.float32)


def document_spans(item: Item, max_tokens: int, overlap_sentences: int) -> list[Span]:
    """Cuts a checked document into chunks; one with a vector is a single chunk.

    Args:
        item: The document.
        max_tokens: Most tokens in an embedded text (title and chunk); 0 keeps the text whole.
        overlap_sentences: Sentences that the next chunk repeats.
    """
    if item.vector is not None or max_tokens == 0:
        return [(0, len(item.text))]
    # The title precedes every chunk; leave at least half of the room to the text.
    room = max(max_tokens - estimate_tokens(item.title), (max_tokens + 1) // 2)
    return chunk_spans(item.text, room, overlap_sentences)


def chunk_texts(text: str, bounds: Sequence[Sequence[int]]) -> list[str]:
    """Returns what is indexed of each chunk: the last headings above it, and its text.

    Args:
        text: The text of a document.
        bounds: Start and end of each chunk, by start.
    """
    sections = sections_at(text, [start for start, _ in bounds])
    return [
        _below_headings(section, text[start:end])
        for section, (start, end) in zip(sections, bounds, strict=True)
    ]


def _below_headings(section: Path, chunk: str) -> str:
    above = ". ".join(titles(section)[-_HEADINGS_INDEXED:])[-_HEADING_CHARACTERS:]
    return f"{above}\n{chunk}" if above else chunk


def text_to_embed(title: str, text: str) -> str:
    """Returns the text to embed for a chunk: title and text, or the text alone if it starts with
    the title."""
    return text if text.startswith(title) else f"{title} {text}"
