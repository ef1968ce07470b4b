"""`nearline recommend-all`: recommends for every user and writes a table; can be resumed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import Conflict, InvalidRequest, NearlineError, first_of
from nearline.store.durable import store_errors, write_durably
from nearline.store.lock import lock_folder
from nearline_cli.compose.build_context import ExecutorOptions, command_executor
from nearline_cli.terminal import options, output
from nearline_cli.terminal.progress import open_progress

if TYPE_CHECKING:
    from index_builder.execution.executor import Executor
    from index_builder.execution.progress import Progress

_Rows = list[dict[str, object]]
# Number and users of a part, and the rows of its lists.
_Part = tuple[int, Sequence[str]]
_Done = tuple[int, _Rows]

_AT_ONCE = 16
_REQUEST = "what.json"
_TIMEOUT_S = 30.0


def recommend_all(
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Table to write.")],
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one user id per line. \\[default: the users that the snapshot in "
            "--store learned from]",
        ),
    ] = None,
    store: options.StoreOption = options.DEFAULT_STORE,
    surface: Annotated[
        str, typer.Option(metavar="NAME", help="Surface whose policy is used.")
    ] = c.DEFAULT_SURFACE,
    n: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", help="Items per list, 1..1000.")
    ] = 20,
    part: Annotated[
        int, typer.Option(metavar="N", min=1, help="Users whose lists are saved together.")
    ] = 1_000,
    address: options.AddressOption = options.DEFAULT_ADDRESS,
    collection: options.CollectionOption = options.DEFAULT_COLLECTION,
    *,
    executor: ExecutorOptions,
    as_json: output.JsonFlag = False,
) -> None:
    """Make a list for every user from a running service, and write a table.

    For example: nearline recommend-all --out lists.parquet --users users.txt

    The table has one row per item: user_id, rank (from 1), item_id, score, snapshot_id, policy,
    served_by. If the command is interrupted, run it again: it continues with the remaining users.
    """
    if out.suffix != ".parquet":
        raise InvalidRequest(f"--out {out} does not end in .parquet; name it so", field="out")
    if out.exists():
        raise Conflict(f"{out} already exists; remove it, or name another --out")
    ids = _read(users) if users is not None else _learned(store, collection)
    joined = "\n".join(ids).encode()
    request = {
        "users": hashlib.sha256(joined).hexdigest(),
        "collection": collection,
        "surface": surface,
        "n": n,
        "part": part,
    }
    folder = out.with_name(out.name + ".parts")
    with _alone(folder):
        left = _begin(folder, request, -(-len(ids) // part))
        parts = {number: ids[number * part : (number + 1) * part] for number in left}
        remaining = sum(map(len, parts.values()))
        if left and not as_json and remaining < len(ids):
            output.print_note(
                f"resuming: {len(ids) - remaining:,} of {len(ids):,} users already have their "
                f"lists; remove {folder} to make all lists again"
            )

        async def run(workers: Executor, progress: Progress) -> None:
            from index_builder.execution.executor import Job

            began = time.monotonic()
            progress.start("recommend", remaining, "users")
            open_part = functools.partial(_open_recommender, address, surface, n, collection)
            job: Job[_Part, _Done] = Job(open=open_part, concurrency=1)

            def take(done: _Done) -> None:
                number, rows = done
                with store_errors(folder):
                    _write(folder / f"{number:08d}.parquet", rows)
                progress.advance(len(parts[number]))

            await workers.run(job, parts.items(), take)
            progress.end(time.monotonic() - began)

        try:
            with command_executor(executor) as workers, open_progress(as_json) as progress:
                asyncio.run(run(workers, progress))
        except KeyboardInterrupt:
            output.print_note("interrupted; run the same command again to continue")
            raise
        rows = _join(folder, out)
    record = {"out": str(out), "users": len(ids), "rows": rows, "surface": surface}
    output.print_figures(record, as_json=as_json)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the lock of the folder of parts; on failure, removes the folder if it has no part.

    Raises:
        Conflict: Another run uses the folder.
    """
    busy = f"another run uses {folder}; wait until it ends, or name another --out"
    with lock_folder(folder, busy):
        try:
            yield
        except BaseException:
            if not any(folder.glob("*.parquet")):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _read(path: Path) -> list[str]:
    try:
        ids = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"--users {path} cannot be read: {error}; give a file with one id per line",
            field="users",
        ) from error
    return [user for user in dict.fromkeys(ids) if user]


def _learned(store: str, collection: str) -> list[str]:
    from nearline.store.snapshot import Store
    from retrieval.behaviour.tables import read_users
    from retrieval.protocols.snapshot import read_current_snapshots

    opened = Store.open(store)
    (snapshot,) = read_current_snapshots(opened, [collection])
    if not snapshot.manifest.HasField("behaviour"):
        raise InvalidRequest(
            f"snapshot {snapshot.snapshot_id} learned from no interactions, so it knows no users; "
            "name them with --users FILE",
            field="users",
        )
    return read_users(opened, snapshot.manifest)


def _begin(folder: Path, request: dict[str, Any], parts: int) -> list[int]:
    """Returns the numbers of the missing parts.

    Raises:
        Conflict: The folder has parts of another request.
    """
    note = folder / _REQUEST
    if note.exists():
        before = json.loads(note.read_text("utf-8"))
        if before != request:
            differs = ", ".join(key for key in request if before.get(key) != request[key])
            raise Conflict(
                f"{folder} contains lists of another {differs} (users come from the snapshot, "
                "unless --users names them); remove it to start over, or use the same options as "
                "then"
            )
    else:
        with store_errors(folder):
            write_durably(note, json.dumps(request).encode())
    return [number for number in range(parts) if not (folder / f"{number:08d}.parquet").exists()]


@contextlib.asynccontextmanager
async def _open_recommender(
    address: str, surface: str, n: int, collection: str
) -> AsyncIterator[Callable[[_Part], Awaitable[_Done]]]:
    """Yields the function that makes the lists of a part, in whichever process it runs."""
    async with RetrievalClient(address, lane=c.Lane.BULK) as client:

        async def ask(part: _Part) -> _Done:
            number, users = part
            return number, await _lists(client, users, surface, n, collection)

        yield ask


async def _lists(
    client: RetrievalClient, users: Sequence[str], surface: str, n: int, collection: str
) -> _Rows:
    found: dict[str, _Rows] = {}
    left = iter(users)

    async def ask() -> None:
        for user in left:
            reply = await client.recommend(
                c.Audience(user_id=user, surface=surface),
                c.RecommendOptions(n=n, payload=frozenset()),
                collection=collection,
                timeout_s=_TIMEOUT_S,
            )
            found[user] = [
                {
                    "user_id": user,
                    "rank": rank,
                    "item_id": one.hit.id,
                    "score": one.hit.score,
                    "snapshot_id": reply.info.snapshot_id,
                    "policy": reply.policy,
                    "served_by": reply.info.served_by.rung or "full",
                }
                for rank, one in enumerate(reply.recommendations, 1)
            ]

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(ask())
    except* NearlineError as failed:
        # All of them failed for the same reason.
        raise first_of(failed) from None
    return [row for user in users for row in found[user]]


def _schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("user_id", text),
            ("rank", pa.int32()),
            ("item_id", text),
            ("score", pa.float32()),
            ("snapshot_id", text),
            ("policy", text),
            ("served_by", text),
        ]
    )


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    # Renamed once complete, so that a part is never partial.
    temporary = path.with_suffix(".writing")
    parquet.write_table(pa.Table.from_pylist(list(rows), _schema()), temporary)
    temporary.replace(path)


def _join(folder: Path, out: Path) -> int:
    """Joins all parts into one table and removes them; returns the number of rows."""
    from pyarrow import parquet

    rows = 0
    temporary = folder / "whole.writing"
    with store_errors(out):
        with parquet.ParquetWriter(temporary, _schema()) as writer:
            for path in sorted(folder.glob("*.parquet")):
                table = parquet.read_table(path)
                writer.write_table(table)
                rows += table.num_rows
        temporary.replace(out)
        shutil.rmtree(folder)
    return rows
