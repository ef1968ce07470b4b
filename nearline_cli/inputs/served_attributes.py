"""Reads cells of CSV files as the collection has their attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from nearline.clients import AdminClient
from nearline.errors import NearlineError
from nearline_cli.inputs.item_columns import ItemColumns

_TIMEOUT_S = 5.0


async def declare_served(
    columns: ItemColumns, address: str, collection: str, names: Iterable[str]
) -> ItemColumns:
    """Returns the columns with the kinds that attributes have in a collection; see `served_kinds`.

    What the user declared comes first. If nobody at the address knows, nothing is added.

    Args:
        columns: Options of the command.
        address: Address of the router.
        collection: Name of the collection.
        names: Names of the files; other than CSV and TSV, they have kinds of their own.
    Raises:
        InvalidRequest: An attribute is declared of an unknown kind.
    """
    # Imported late: they load what only a build and this need.
    from index_builder.documents.detected_lists import DELIMITED
    from index_builder.options.declared_attributes import (
        check_kinds,
        declared_kinds,
        served_kinds,
    )

    check_kinds(declared_kinds(columns.attribute or ()))
    if not any(Path(name).suffix.lower() in DELIMITED for name in names):
        return columns
    try:
        async with asyncio.timeout(_TIMEOUT_S), AdminClient(address) as admin:
            found = await admin.collection(collection)
    except (NearlineError, TimeoutError):
        return columns
    served = [f"{name}:{kind}" for name, kind in served_kinds(found.attributes).items()]
    # Of two declarations of an attribute, the last counts.
    return columns._replace(attribute=[*served, *(columns.attribute or ())])
