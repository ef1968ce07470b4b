"""Limits on the size of an item that is changed while it is served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nearline.contract import MAX_ATTRIBUTES_BYTES, MAX_TEXT_BYTES, MAX_TITLE_BYTES, Item
from nearline.errors import InvalidRequest

_SCALAR_BYTES = 8


def check_sizes(item: Item) -> None:
    """Checks that an item is small enough to be changed while it is served.

    Raises: InvalidRequest: its title, text or attributes are too large; names the field.
    """
    _check_text(item.title, "title", MAX_TITLE_BYTES, "shorten it, or move a part to the text")
    _check_text(
        item.text,
        "text",
        MAX_TEXT_BYTES,
        "split it into several items, or add the item with nearline build",
    )
    size = 0
    for part in _part_sizes(item.attributes):
        size += part
        if size > MAX_ATTRIBUTES_BYTES:
            raise attributes_error()


def attributes_error() -> InvalidRequest:
    """Returns the error of an item whose attributes are too large."""
    return InvalidRequest(
        f"the attributes have more than {MAX_ATTRIBUTES_BYTES} bytes, which is the most allowed "
        "for an item that is changed live; remove some, or move them to the text",
        field="attributes",
    )


def attributes_bytes(attributes: Mapping[str, object]) -> int:
    """Returns about how many bytes attributes have."""
    return sum(_part_sizes(attributes))


def _check_text(text: str, field: str, most: int, remedy: str) -> None:
    size = text_bytes(text)
    if size > most:
        raise InvalidRequest(
            f"{field} has {size} bytes, and at most {most} are allowed for an item that is changed "
            f"live; {remedy}",
            field=field,
        )


def _part_sizes(attributes: Mapping[str, object]) -> Iterator[int]:
    """Yields about how many bytes each name, value and list has, at least one."""
    # Not recursively: objects may be nested deeply.
    waiting: list[object] = [*attributes, *attributes.values()]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.keys()
            waiting += one.values()
            yield 1
        elif isinstance(one, list | tuple):
            waiting += one
            yield 1
        else:
            yield max(1, text_bytes(one)) if isinstance(one, str) else _SCALAR_BYTES


def text_bytes(text: str) -> int:
    """Returns the bytes of a text in UTF-8."""
    return len(text.encode("utf-8", "surrogatepass"))
