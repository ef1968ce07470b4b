"""Names of request fields in errors, as the interface of the caller has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nearline.errors import InvalidRequest


@contextlib.contextmanager
def renamed_field(name: str, new: str) -> Iterator[None]:
    """Renames a field, or an element of it, in an error of the block: texts[3] is documents[3].

    Args:
        name: Its name in the proto, with which messages about it begin.
        new: Its name for the caller.
    """
    try:
        yield
    except InvalidRequest as error:
        if error.field.partition("[")[0] != name:
            raise
        said = error.message
        renamed = error.with_message(
            new + said.removeprefix(name) if said.startswith(name) else said
        )
        renamed.field = new + error.field.removeprefix(name)
        raise renamed from error
