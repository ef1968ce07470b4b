"""How tables in the queue are read: attributes of their collection decide what their cells are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from index_builder.options.declared_attributes import list_names, served_kinds
from index_builder.readers.columns import DocumentColumns
from nearline.clients import AdminClient
from nearline.errors import NearlineError

ColumnsOf: TypeAlias = Callable[[str], Awaitable[DocumentColumns]]


async def default_columns(collection: str) -> DocumentColumns:
    """Returns the columns where nothing is known of the attributes of a collection."""
    return DocumentColumns()


def columns_by(admin: AdminClient) -> ColumnsOf:
    """Returns a function that asks a router for the attributes of a collection.

    If it does not answer, cells are read by what is in them; writing waits for it anyway.
    """

    async def columns_of(collection: str) -> DocumentColumns:
        try:
            found = await admin.collection(collection)
        except NearlineError:
            return await default_columns(collection)
        kinds = served_kinds(found.attributes)
        return DocumentColumns(declared=tuple(kinds), lists=list_names(kinds))

    return columns_of
