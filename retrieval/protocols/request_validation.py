"""Validates requests for recommendations, and suggests names in place of misspelt ones."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection

from nearline import contract as c
from nearline.access.tenant_ids import name_of
from nearline.contract import MAX_ID_BYTES
from nearline.errors import InvalidRequest
from nearline.items.documents import check_text_bytes
from nearline.wire.limits import LIMITS, SHARE, USER_ATTRIBUTES, check_count, check_range

# Of attributes of a user or a request.
MAX_NAME_BYTES, MAX_TEXT_BYTES = 64, 256
_MAX_COMPARED = 256  # Characters of a name.


def check_list_request(audience: c.Audience, options: c.RecommendOptions) -> None:
    """Raises InvalidRequest if a value is out of range; the error names value and range."""
    check_range(options.n, "n", LIMITS["RecommendRequest.n"])
    for field, ids, remedy in (
        ("item_ids", audience.item_ids, ""),
        ("exclude_ids", options.exclude_ids, "a policy can exclude seen items by itself"),
    ):
        check_count(len(ids), field, LIMITS[f"RecommendRequest.{field}"], remedy)
        if not all(ids):
            raise InvalidRequest(f"{field} has an empty id; leave it out", field=field)
        # Characters take one to four bytes, so few ids have to be encoded.
        for one in ids:
            if 4 * len(one) > MAX_ID_BYTES:
                check_id(one, field)
    for field, value in (
        ("user_id", audience.user_id),
        ("session_id", audience.session_id),
        ("why_not_id", options.why_not_id),
    ):
        check_id(value, field)
    for field, share in (
        ("diversity", options.diversity),
        ("popularity_debias", options.popularity_debias),
    ):
        if share is not None:
            check_range(share, field, SHARE)
    check_attributes(audience.context, "context")


def check_attributes(attributes: c.Attributes, field: str) -> None:
    """Raises InvalidRequest unless attributes of a user or a request are few, short and single."""
    remedy = "leave out what no policy refers to and few users share"
    check_count(len(attributes), field, USER_ATTRIBUTES, remedy)
    for name, value in attributes.items():
        check_text_bytes(name, f"{field} (a name)", MAX_NAME_BYTES, 1)
        path = f"{field}.{name}"
        if isinstance(value, str):
            check_text_bytes(value, path, MAX_TEXT_BYTES)
        elif not isinstance(value, int | float) or value != value or abs(value) == math.inf:
            remedy = "send a text, a finite number or a truth value, or leave it out"
            raise InvalidRequest(f"{path} is {value!r}; {remedy}", field=path)


def check_id(value: str, field: str) -> None:
    """Raises InvalidRequest if the id of a user or session is too long, without its tenant."""
    size = len(name_of(value).encode(errors="replace"))
    if size > MAX_ID_BYTES:
        raise InvalidRequest(
            f"{field} has {size} bytes; at most {MAX_ID_BYTES} bytes are allowed", field=field
        )


def closest_name(name: str, known: Collection[str], cutoff: float) -> str:
    """Returns the known name that is most like another one; empty if none is.

    A very long name is like none: comparing takes time in proportion to its square.

    Args:
        name: The name.
        known: Known names.
        cutoff: Least likeness, 0..1.
    """
    if len(name) > _MAX_COMPARED:
        return ""
    return next(iter(difflib.get_close_matches(name, known, 1, cutoff)), "")


def suggest_names(name: str, known: Collection[str]) -> str:
    """Returns the known names, quoted, with the one closest to `name` first; "none" if empty."""
    first = closest_name(name, known, 0.0)
    close = [first] if first in known else []
    return ", ".join(repr(other) for other in [*close, *sorted(set(known) - set(close))]) or "none"
