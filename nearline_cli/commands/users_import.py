"""`nearline users import`: adds interactions of the past to what models learn from."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline.retry import retry_while_unavailable
from nearline_cli.inputs.interactions import ItemColumn, TimeColumn, UserColumn
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.execution.progress import Progress

# The rows of a part, in batches.
_Part: TypeAlias = Sequence[c.InteractionColumns]


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="CSV (also .csv.gz), TSV, JSON lines or Parquet; a folder of them; or a URL such "
            "as s3://bucket/prefix.",
        ),
    ],
    user_column: UserColumn = "user",
    item_column: ItemColumn = "item",
    time_column: TimeColumn = "time",
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
    from index_builder.interactions.reader import ColumnNames, read_importable
    from nearline_cli.inputs.interaction_files import file_content, find_interaction_files

    columns = ColumnNames(user_column, item_column, time_column, kind_column, value_column)
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
            for file in files:
                with file.local() as path, open_progress(as_json) as progress:
                    content = await asyncio.to_thread(file_content, path, columns)
                    send = partial(_send, client, import_id or content.import_id, collection)
                    progress.start("import", content.rows, "rows")
                    tables = read_importable(path, columns, left_out)
                    totals.update(await _import_rows(send, tables, progress))

    started = time.monotonic()
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        output.print_note("interrupted; run the same command again to continue")
        raise
    seconds = time.monotonic() - started
    record = {**totals, "seconds": round(seconds, 3), "left_out": dict(+left_out)}
    before = f"; {totals['duplicates']:,} were stored before" if totals["duplicates"] else ""
    lines = [
        f"imported {counted(totals['recorded'], 'interaction')} in {seconds:.1f} s{before}",
        *(f"left out: {count:,} with {reason}" for reason, count in (+left_out).items()),
        "the next training learns from them: upkeep's, or nearline build --learn",
    ]
    output.print_result(record, "\n".join(lines), as_json=as_json)


async def _import_rows(
    send: Callable[[_Part, int], Awaitable[c.ImportReply]],
    tables: Iterator[Any],
    progress: Progress,
) -> dict[str, int]:
    """Sends the parts that are not stored; returns counts of rows, as in `ImportReply`.

    Args:
        send: Sends rows; the number is that of the rows before them.
        tables: Rows as `read_importable` yields them.
        progress: Receives how many are stored.
    """
    started = time.monotonic()
    recorded = first = 0
    stored = (await retry_while_unavailable(partial(send, [], 0))).rows
    parts = _parts(tables)
    # In a thread, since the file is parsed.
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        size = sum(len(batch.user_ids) for batch in part)
        # A shorter part is the last one, and sent again: the file may have changed.
        if size < c.IMPORT_PART_ROWS or first + size > stored:
            recorded += (await retry_while_unavailable(partial(send, part, first))).recorded
        first += size
        progress.advance(size)
    progress.end(time.monotonic() - started)
    return {"recorded": recorded, "duplicates": first - recorded}


async def _send(
    client: RetrievalClient, import_id: str, collection: str, part: _Part, first: int
) -> c.ImportReply:
    async def batches() -> AsyncIterator[c.InteractionColumns]:
        for batch in part or [c.InteractionColumns()]:
            yield batch

    return await client.import_interactions(
        batches(), import_id=import_id, first_row=first, collection=collection
    )


def _parts(tables: Iterator[Any]) -> Iterator[_Part]:
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
