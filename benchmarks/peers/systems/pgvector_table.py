"""PostgreSQL with pgvector, called by psycopg."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.dataset import ATTRIBUTES, Condition, PeerDataset
from benchmarks.peers.server_process import server_process
from benchmarks.peers.system import PeerClient, Place, System
from nearline.errors import NotReady
from nearline_cli.local.processes import free_port

_INSTALLED = Path("/usr/lib/postgresql")
_EXTENSION = "/usr/share/postgresql/{version}/extension/vector.control"
# PostgreSQL refuses to run as root.
_USER = "postgres"
_MEMORY = ("shared_buffers=512MB", "maintenance_work_mem=512MB")
_UPSERT = (
    "INSERT INTO items VALUES (%(row)s, %(vector)s, "
    + "".join(f"%({name})s, " for name in ATTRIBUTES)
    + "%(text)s) ON CONFLICT (id) DO UPDATE "
    "SET embedding = EXCLUDED.embedding, text = EXCLUDED.text"
)


class PgvectorClient(PeerClient):
    """A connection for each thread; prepared statements, vectors and replies in binary.

    The vectors have unit length, so the inner product is the cosine, as pgvector advises.
    """

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        super().__init__(address, dataset)
        self._thread = threading.local()
        self._connections: list[Any] = []

    def load(self) -> None:
        cursor = self._cursor(0)
        cursor.execute(
            "CREATE TABLE items (id int4 PRIMARY KEY, "
            f"embedding vector({self.dataset.base.shape[1]}), "
            + "".join(f"{name} int4, " for name in ATTRIBUTES)
            + "text text)"
        )
        with cursor.copy("COPY items FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "vector", *("int4" for _ in ATTRIBUTES), "text"])
            for row, vector in enumerate(self.dataset.base):
                values = self.dataset.attributes(row).values()
                copy.write_row([row, np.array(vector), *values, self.dataset.text(row)])
        cursor.execute("CREATE INDEX ON items USING hnsw (embedding vector_ip_ops)")
        for name in ATTRIBUTES:
            cursor.execute(f"CREATE INDEX ON items ({name})")
        cursor.execute("VACUUM ANALYZE items")

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        columns = ", text" if payload else ""
        where = f"WHERE {condition.attribute} = %(value)s" if condition else ""
        found = self._cursor(width).execute(
            f"SELECT id, embedding <#> %(vector)b AS distance{columns} FROM items {where} "
            f"ORDER BY embedding <#> %(vector)b LIMIT {self.dataset.k}",
            {"vector": vector, "value": condition.value if condition else None},
            prepare=True,
        )
        return [row[0] for row in found.fetchall()]

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        values = [
            {"row": row, "vector": vector, "text": self.dataset.text(row)}
            | self.dataset.attributes(row)
            for row, vector in zip(rows, vectors, strict=True)
        ]
        self._cursor(0).executemany(_UPSERT, values)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _cursor(self, width: int) -> Any:
        """Returns a cursor of the thread's connection, which searches at this width."""
        if not hasattr(self._thread, "cursor"):
            from pgvector.psycopg import register_vector
            from psycopg import connect

            connection = connect(self.address, autocommit=True, connect_timeout=10)
            self._connections.append(connection)
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
            # A filter may drop all that one walk finds; "relaxed" is advised for recall.
            connection.execute("SET hnsw.iterative_scan = relaxed_order")
            self._thread.cursor, self._thread.width = connection.cursor(binary=True), 0
        if width not in (0, self._thread.width):
            self._thread.cursor.execute(f"SET hnsw.ef_search = {int(width)}")
            self._thread.width = width
        return self._thread.cursor


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    programs = _programs()
    assert programs is not None
    user = _USER if os.getuid() == 0 else None
    data, port = place.folder / "data", free_port()
    if not data.exists():
        _make_cluster(programs, data, user)
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data)]
    for setting in ("listen_addresses=127.0.0.1", *_MEMORY):
        command += ["-c", setting]

    def ready() -> bool:
        said = subprocess.run(
            [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
        )
        return said.returncode == 0

    log = place.folder / "postgres.log"
    # SIGINT ends it without waiting for its clients.
    async with server_process(command, log, ready, user=user, stop=signal.SIGINT):
        yield f"host=127.0.0.1 port={port} user={_USER} dbname=postgres"


def _make_cluster(programs: Path, data: Path, user: str | None) -> None:
    data.mkdir()
    if user:
        shutil.chown(data, user, user)
        for folder in (data.parent, data.parent.parent):
            # Its user must get to the data.
            folder.chmod(folder.stat().st_mode | 0o011)
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "--no-locale", "-E", "UTF8"],
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd=data,
    )
    if made.returncode:
        raise NotReady(f"initdb failed: {made.stderr.strip()}")


def _programs() -> Path | None:
    """Returns the folder of the newest PostgreSQL that has pgvector."""
    versions = [folder.name for folder in _INSTALLED.glob("*") if folder.name.isdigit()]
    for version in sorted(versions, key=int, reverse=True):
        if Path(_EXTENSION.format(version=version)).exists():
            return _INSTALLED / version / "bin"
    return None


def _missing() -> str:
    wanted = [] if _programs() else ["apt: postgresql-17 postgresql-17-pgvector"]
    if not all(map(find_spec, ("psycopg", "pgvector"))):
        wanted.append('pip: "psycopg[binary]" pgvector')
    return "; ".join(wanted)


PGVECTOR = System(
    name="pgvector",
    label="pgvector (HNSW, m 16)",
    client=PgvectorClient,
    serve=_serve,
    missing=_missing,
)
