"""`nearline items`: adds, replaces, deletes and shows items while they are served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.counts import counted
from nearline.errors import InvalidRequest
from nearline_cli.inputs.item_columns import ItemColumns
from nearline_cli.inputs.served_attributes import declare_served
from nearline_cli.terminal import confirmation, durations, options, output
from nearline_cli.terminal.option_groups import add_command
from nearline_cli.views.hits import ignored_records, served_by_record
from nearline_cli.views.write_tally import WriteTally

_SHOWN = frozenset({c.PayloadField.TITLE, c.PayloadField.TEXT, c.PayloadField.ATTRIBUTES})
# Far below the limit of a message, whatever the script.
_BATCH_CHARACTERS = 4 << 20
_SNIPPET_CHARACTERS = 96

app = typer.Typer(no_args_is_help=True, help="Add, replace, delete and show items.")
_BatchOption = Annotated[int, typer.Option(metavar="N", help="Items per request, 1..1024.")]
_WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        parser=durations.read_wait,
        metavar=durations.METAVAR,
        help="Wait at most so long until every shard serves the changes; without a duration, as "
        "long as --timeout. \\[default: do not wait]",
        show_default=False,
    ),
]


def upsert(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-",
            help="JSON lines, CSV, TSV or Parquet; -: JSON lines from standard input.",
        ),
    ],
    *,
    columns: ItemColumns,
    only_attributes: Annotated[
        bool,
        typer.Option(
            "--only-attributes",
            help="Only set attributes of existing items; null removes one. Titles and texts stay "
            "unchanged.",
        ),
    ] = False,
    batch: _BatchOption = 256,
    wait: _WaitOption = 0.0,
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Add items, or replace existing ones.

    For example: nearline items upsert catalogue.jsonl --wait

    Each batch is durable before the next is sent.
    """

    _check_batch(batch)
    tally = WriteTally(as_json=as_json)

    async def run() -> None:
        declared = await declare_served(columns, address, collection, [file])
        async with RetrievalClient(address) as client:
            for items in _item_batches(file, declared, only_attributes, batch, tally):
                await tally.take(
                    lambda items=items: client.upsert_items(  # type: ignore[misc]
                        items,
                        collection=collection,
                        only_attributes=only_attributes,
                        timeout_s=timeout,
                    )
                )
            await tally.finish(client, collection, _wait_s(wait, timeout))

    asyncio.run(run())
    tally.print()


add_command(app, upsert)


@app.command()
def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Item ids.")] = None,
    ids_from: Annotated[
        str, typer.Option(metavar="FILE|-", help="File with one id per line; -: standard input.")
    ] = "",
    filter: options.FilterOption = "",
    batch: _BatchOption = 256,
    wait: _WaitOption = 0.0,
    yes: confirmation.YesOption = False,
    timeout: options.TimeoutOption = options.LONG_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Delete items; ids that do not exist are ignored.

    For example: nearline items delete sku-1 sku-2 --yes, or: nearline items delete --filter
    'year < 2000'
    """
    _check_batch(batch)
    choices = {"ids": ids, "--ids-from": ids_from, "--filter": filter}
    named = [name for name, given in choices.items() if given]
    if len(named) != 1:
        found = " and ".join(named) or "no ids"
        raise InvalidRequest(
            f"{found} were named; name ids, --ids-from FILE or --filter FILTER", field="ids"
        )
    if filter:
        _delete_matching(filter, yes=yes, address=address, collection=collection, as_json=as_json)
        return
    what = f"the items of {ids_from}" if ids_from else counted(len(ids or ()), "item")
    confirmation.confirm(f"delete {what} from {collection!r}", yes=yes)
    tally = WriteTally(as_json=as_json)

    async def run() -> None:
        async with RetrievalClient(address) as client:
            for part in _id_batches(ids or [], ids_from, batch, tally):
                await tally.take(
                    lambda part=part: client.delete_items(  # type: ignore[misc]
                        part, collection=collection, timeout_s=timeout
                    )
                )
            await tally.finish(client, collection, _wait_s(wait, timeout))

    asyncio.run(run())
    tally.print()


@app.command("list")
def list_items(
    filter: options.FilterOption = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="Most items.")
    ] = 20,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """List items in id order.

    For example: nearline items list --filter 'year >= 2000' -n 100
    """
    with BlockingRetrievalClient(address) as client:
        found = client.items(filter or None, _SHOWN, collection=collection)
        items = list(itertools.islice(found, limit))
        more = next(found, None) is not None
    if as_json:
        output.print_json({"items": list(map(_item_record, items)), "more": more})
        return
    names = ("id", "version", "expires", "attributes", "text")
    output.print_table(names, [_row(item) for item in items])
    if more:
        output.print_note("there are more; raise --limit, or write all: nearline items export FILE")


@app.command()
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="File of JSON lines; -: standard output.")
    ],
    filter: options.FilterOption = "",
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Write the vector of each item too, if it has one.")
    ] = False,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
) -> None:
    """Write all items that match, as `nearline items upsert` and `nearline build` read them.

    For example: nearline items export shop.jsonl --filter 'brand = acme'

    Each attribute is a column of its own; times are text in ISO 8601. The file appears once it is
    complete.
    """
    payload = _SHOWN | ({c.PayloadField.VECTOR} if vectors else frozenset())
    count = 0
    with BlockingRetrievalClient(address) as client, _written(file) as stream:
        for item in client.items(filter or None, payload, collection=collection):
            stream.write(json.dumps(_exported(item), ensure_ascii=False) + "\n")
            count += 1
    output.print_note(f"wrote {counted(count, 'item')}")


@app.command()
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Item ids, 1..1024.")],
    watermark: Annotated[
        str,
        typer.Option(metavar="HEX", help="Watermark of a write: read a state that includes it."),
    ] = "",
    timeout: options.TimeoutOption = options.DEFAULT_TIMEOUT,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    as_json: output.JsonFlag = False,
) -> None:
    """Show items as currently served, with the number of their last live change."""
    try:
        least = bytes.fromhex(watermark)
    except ValueError as error:
        raise InvalidRequest(
            f"--watermark {output.one_line(watermark, 20)!r} is not hexadecimal; pass it as "
            "printed by a write with --json",
            field="min_watermark",
        ) from error
    with BlockingRetrievalClient(address) as client:
        reply = client.get_items(
            ids, _SHOWN, collection=collection, min_watermark=least, timeout_s=timeout
        )
    if as_json:
        output.print_json(_record(reply))
    else:
        names = ("id", "version", "expires", "attributes", "text")
        output.print_table(names, [_row(item) for item in reply.items])
        for one in reply.ignored_ids:
            output.print_note(f"{output.escaped(one.id)}: {one.reason.value}")
        if reply.info.served_by.reason:
            output.console(error=True).print(reply.info.served_by.reason)
    if reply.ignored_ids:
        raise typer.Exit(1)


def _delete_matching(
    filter: str, *, yes: bool, address: str, collection: str, as_json: bool
) -> None:
    with BlockingRetrievalClient(address) as client:
        count = client.count_items(filter, collection=collection).count
        confirmation.confirm(
            f"delete {counted(count, 'item')} that match {filter!r} from {collection!r}", yes=yes
        )
        done = client.delete_matching(filter, collection=collection)
    output.print_result(
        {"deleted": done.deleted, "watermark": done.watermark.hex()},
        f"deleted {counted(done.deleted, 'item')}",
        as_json=as_json,
    )


@contextlib.contextmanager
def _written(file: str) -> Iterator[TextIO]:
    """Opens a file that appears under its name at the end of the block."""
    if file == "-":
        yield sys.stdout
        return
    target = Path(file)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            yield stream
        temporary.replace(target)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error}", field="file") from error
    finally:
        temporary.unlink(missing_ok=True)


def _exported(item: c.Item) -> dict[str, object]:
    """Returns an item as a row with a column for each attribute."""
    row: dict[str, object] = {"id": item.id, "title": item.title, "text": item.text}
    if item.expires is not None:
        row["expires"] = item.expires.isoformat()
    if item.vector is not None:
        row["vector"] = item.vector.tolist()
    if taken := row.keys() & item.attributes.keys():
        raise InvalidRequest(
            f"item {item.id!r} has an attribute {min(taken)!r}, which is the name of a column; "
            "rename it",
            field="attributes",
        )
    return row | output.json_record(dict(item.attributes))


def _item_batches(
    source: str, columns: ItemColumns, only_attributes: bool, size: int, tally: WriteTally
) -> Iterator[Sequence[c.Item]]:
    """Yields items in batches without repeated ids; malformed rows go to the tally."""
    from nearline_cli.inputs.item_rows import ItemRow, read_items

    waiting: list[c.Item] = []
    characters = 0
    rows = read_items(source, columns, only_attributes=only_attributes, on_list=tally.detect)
    for row in rows:
        if not isinstance(row, ItemRow):
            tally.refuse(str(row.location), InvalidRequest.reason, row.reason)
            continue
        full = len(waiting) == size or characters >= _BATCH_CHARACTERS
        if full or row.item.id in tally.places:
            yield waiting
            waiting, characters = [], 0
        characters += len(row.item.text)
        waiting.append(row.item)
        tally.places[row.item.id] = str(row.location)
    if waiting:
        yield waiting


def _id_batches(
    ids: Sequence[str], source: str, size: int, tally: WriteTally
) -> Iterator[Sequence[str]]:
    """Yields ids in batches, each id once."""
    lines: Sequence[str] = ids
    if source:
        try:
            text = sys.stdin.read() if source == "-" else Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"--ids-from {source} cannot be read: {error}", field="ids"
            ) from error
        lines = text.splitlines()
    places: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            places.setdefault(line.strip(), f"{source}:{number}" if source else line)
    unique = list(places)
    for at in range(0, len(unique), size):
        part = unique[at : at + size]
        tally.places.update((item_id, places[item_id]) for item_id in part)
        yield part


def _wait_s(wait_s: float, timeout_s: float) -> float | None:
    """Returns how long to wait for the shards; None for not at all."""
    if not wait_s:
        return None
    return timeout_s if wait_s == math.inf else wait_s


def _check_batch(size: int) -> None:
    if not 1 <= size <= c.MAX_BATCH:
        raise InvalidRequest(f"--batch is {size}; 1..{c.MAX_BATCH} is allowed", field="batch")


def _row(item: c.Item) -> list[object]:
    attributes = ", ".join(f"{name}={value}" for name, value in item.attributes.items())
    text = " — ".join(part for part in (item.title, item.text) if part)
    return [
        item.id,
        item.version,
        None if item.expires is None else item.expires.isoformat(),
        attributes,
        output.one_line(text, _SNIPPET_CHARACTERS),
    ]


def _item_record(item: c.Item) -> dict[str, object]:
    return {
        "id": item.id,
        "version": item.version,
        "title": item.title,
        "text": item.text,
        "attributes": dict(item.attributes),
        "expires": None if item.expires is None else item.expires.isoformat(),
    }


def _record(reply: c.ItemsReply) -> dict[str, object]:
    info = reply.info
    return {
        "items": list(map(_item_record, reply.items)),
        "ignored_ids": ignored_records(reply.ignored_ids),
        "epoch": info.epoch,
        "snapshot": info.snapshot_id,
        "watermark": info.watermark.hex(),
        "served_by": served_by_record(info),
    }
