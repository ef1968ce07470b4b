"""`nearline users import`: adds interactions of the past to what models learn from."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.retry import retry_while_unavailable
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.execution.progress import Progress
    from index_builder.interactions.reader import InteractionColumns


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV (also .csv.gz), TSV, JSON lines or Parquet; a folder of them; or a URL such "
            "as s3://bucket/prefix.",
        ),
    ],
    user_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the user.")] = "user",
    item_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the item.")] = "item",
    time_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column of the time: ISO 8601, or seconds since 1970."),
    ] = "time",
    kind_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of the kind. \\[default: all are views]")
    ] = "",
    value_column: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Column of the weight, in place of that of the kind. \\[default: none]",
        ),
    ] = "",
    import_id: Annotated[
        str,
        typer.Option(
            metavar="ID",
            help="Name of the import: the same rows under the same name count once. \\[default: "
            "derived from the content of each file]",
        ),
    ] = "",
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Import interactions of the past, however many, for the next training.

    For example: nearline users import orders.csv --user-column customer --item-column sku

    If it is interrupted, run it again: it resumes, and no row counts twice.
    """
    from index_builder.interactions.reader import InteractionColumns
    from nearline_cli.inputs.interaction_files import file_content, find_interaction_files

    columns = InteractionColumns(user_column, item_column, time_column, kind_column, value_column)
    files = find_interaction_files(source)
    if import_id and len(files) > 1:
        raise InvalidRequest(
            f"--import-id {import_id} names one import, but {source} has {len(files)} files; "
            "import them one by one, or leave it out",
            field="import_id",
        )
    totals: Counter[str] = Counter()
    left_out: Counter[str] = Counter()

    async def run() -> None:
        async with RetrievalClient(address) as client:
            with open_progress(as_json) as progress:
                for file in files:
                    with file.local() as path:
                        content = await asyncio.to_thread(file_content, path, columns)
                        name = import_id or content.import_id
                        importing = _FileImport(client, path, columns, name, collection, left_out)
                        totals.update(await importing.run(progress, content.rows))

    started = time.monotonic()
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; run the same command again to continue")
        raise
    seconds = time.monotonic() - started
    record = {**totals, "seconds": round(seconds, 3), "left_out": dict(+left_out)}
    lines = [
        f"imported {counted(totals['recorded'], 'interaction')} in {seconds:.1f} s"
        + (f"; {totals['duplicates']:,} were stored before" if totals["duplicates"] else "")
    ]
    lines += [f"left out: {count:,} with {reason}" for reason, count in (+left_out).items()]
    lines.append("they count from the next training on: nearline build --learn, or upkeep's")
    output.print_result(record, "\n".join(lines), as_json=as_json)


class _FileImport:
    """Imports one file.

    Args:
        client: Client of the router.
        path: The file.
        columns: Names of its columns.
        import_id: Name of the import.
        collection: Name of the collection.
        left_out: Counts rows that cannot be imported, by reason.
    """

    def __init__(
        self,
        client: RetrievalClient,
        path: Path,
        columns: InteractionColumns,
        import_id: str,
        collection: str,
        left_out: Counter[str],
    ) -> None:
        self._client = client
        self._path = path
        self._columns = columns
        self._import_id = import_id
        self._collection = collection
        self._left_out = left_out

    async def run(self, progress: Progress, rows: int | None) -> Counter[str]:
        """Sends the parts that are not stored; returns counts of rows, as in `ImportReply`.

        rows: About how many the file has, if known.
        """
        from index_builder.interactions.reader import read_importable

        started = time.monotonic()
        stored = (await retry_while_unavailable(partial(self._send, [], 0))).rows
        counts = Counter(recorded=0, duplicates=0)
        progress.start("import", rows, "rows")
        parts = _parts(read_importable(self._path, self._columns, self._left_out))
        first = 0
        # In a thread, since the file is parsed.
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            size = sum(len(batch.user_ids) for batch in part)
            if size == c.IMPORT_PART_ROWS and first + size <= stored:
                counts["duplicates"] += size
            else:
                reply = await retry_while_unavailable(partial(self._send, part, first))
                counts.update(recorded=reply.recorded, duplicates=reply.duplicates)
            first += size
            progress.advance(size)
        progress.end(time.monotonic() - started)
        return counts

    async def _send(self, part: list[c.InteractionColumns], first: int) -> c.ImportReply:
        """Sends a part of the rows; without rows, asks how many are stored."""

        async def batches() -> AsyncIterator[c.InteractionColumns]:
            for batch in part or [c.InteractionColumns()]:
                yield batch

        return await self._client.import_interactions(
            batches(), import_id=self._import_id, first_row=first, collection=self._collection
        )


def _parts(tables: Iterator[Any]) -> Iterator[list[c.InteractionColumns]]:
    """Yields rows in parts of IMPORT_PART_ROWS, each in batches; the last part may be shorter."""
    part: list[c.InteractionColumns] = []
    left = c.IMPORT_PART_ROWS
    for table in tables:
        while table.num_rows:
            size = min(table.num_rows, left, c.MAX_IMPORT_ROWS)
            rows, table = table.slice(0, size), table.slice(size)
            part.append(c.InteractionColumns(*(one.to_pylist() for one in rows.columns)))
            left -= size
            if not left:
                yield part
                part, left = [], c.IMPORT_PART_ROWS
    if part:
        yield part
