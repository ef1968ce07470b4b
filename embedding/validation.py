"""Validates the texts of a request."""

from __future__ import annotations

from nearline.errors import InvalidRequest


def check_text(text: str, field: str, max_characters: int) -> None:
    """Refuses a text that is blank, too long, or not valid Unicode.

    Args:
        text: The text.
        field: Its field in the request, for example "texts[3]".
        max_characters: Code points allowed.
    Raises: InvalidRequest.
    """
    if not text or text.isspace():
        raise InvalidRequest(
            f"{field} is empty or only white space; remove it, because it has no meaning to embed",
            field=field,
        )
    if len(text) > max_characters:
        raise InvalidRequest(
            f"{field} has {len(text)} characters, {max_characters} are allowed; split it into "
            "chunks",
            field=field,
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"{field} has a lone surrogate at position {error.start}; it is not valid "
                "Unicode: decode the source with errors='replace'",
                field=field,
            ) from error


def check_count(count: int, field: str, max_texts: int) -> None:
    """Refuses a request with no text, or with more than are allowed.

    Raises: InvalidRequest.
    """
    if not 1 <= count <= max_texts:
        raise InvalidRequest(f"{field} has {count} texts; send 1..{max_texts}", field=field)
