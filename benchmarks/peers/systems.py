"""The measured systems, each with the blocking client that a user would pick."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import redis
from numpy.typing import NDArray
from redis.commands.vectorset.commands import QuantizationOptions

import nearline
from benchmarks.baselines import processes
from benchmarks.peers.dataset import ATTRIBUTES, CALLERS, Condition, K, PeerDataset
from benchmarks.peers.system import System, server_process
from benchmarks.workloads.closed_loop import SearchTask
from benchmarks.workloads.retrieval_dataset import IndexVariant, build_collection
from nearline.clients.blocking import BlockingRetrievalClient
from nearline.contract import Item, SearchOptions
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc
from nearline.vectors import pack
from nearline_cli.local.processes import free_port

_HOST = "127.0.0.1"
_NAME = "items"
_BATCH = 500


class Nearline(System):
    """A router that holds its only shard, with default settings, and the blocking client."""

    name = "nearline"

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        task = await _snapshot(dataset, folder.parent)
        async with processes.router_process(["--store", str(task.store)], 0) as router:
            with contextlib.closing(BlockingRetrievalClient(router.address)) as self._client:
                yield

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        text = f"{condition.attribute} = {condition.value}" if condition else None
        options = SearchOptions(k=K, ef_search=self.width, payload=frozenset(), filter=text)
        reply = self._client.search(vector, options, collection=_NAME)
        return [int(hit.id) for hit in reply.hits]


class Floor(System):
    """A bare gRPC server over the index of Nearline's snapshot, and its blocking stub."""

    name = "floor"
    filters = False

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        task = await _snapshot(dataset, folder.parent)
        async with processes.floor_process(task) as server:
            # The types of the stub know the asyncio API alone.
            channel: Any = grpc.insecure_channel(server.address)
            with channel:
                self._stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
                yield

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        options = pb.SearchOptions(k=K, ef_search=self.width)
        request = pb.SearchRequest(query=pb.Query(vector=pack(vector)), options=options)
        return [int(hit.id) for hit in self._stub.Search(request).result.hits]


async def _snapshot(dataset: PeerDataset, folder: Path) -> SearchTask:
    """Returns the snapshot of both; the first caller builds it."""
    folder = folder / "snapshot"
    task = SearchTask(folder, K, 64, CALLERS, len(os.sched_getaffinity(0)), collection=_NAME)
    if not folder.exists():
        folder.mkdir()
        # In a process of its own, whose memory is freed with it.
        with processes.single_process_pool() as pool:
            await processes.run_in(pool, _build_snapshot, dataset, task)
    return task


def _build_snapshot(dataset: PeerDataset, task: SearchTask) -> None:
    # The rows of a snapshot are in the order of their ids.
    ids = [f"{row:09d}" for row in range(len(dataset.base))]
    items = (
        Item(id=ids[row], attributes=dict(dataset.attributes(row)), vector=vector)
        for row, vector in enumerate(dataset.base)
    )
    build_collection(IndexVariant("HNSW32,Flat", task), items)
    task.ids.write_text("\n".join(ids), "utf-8")


class Redis(System):
    """A vector set of Redis 8, and redis-py with its pool of connections."""

    name = "redis"
    requirements = "apt: redis-server, version 8 or newer"
    program = "redis-server"
    # None is the server's default, int8.
    quantization: QuantizationOptions | None = None

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        port = free_port()

        def connect() -> redis.Redis:
            client = redis.Redis(_HOST, port, decode_responses=True)
            client.ping()
            return client

        command = [self.program, "--port", str(port), "--bind", _HOST, "--save", ""]
        async with server_process(command, folder, connect) as client:
            with client:
                self._set = client.vset()
                self._rows = len(dataset.base)
                yield

    def build(self, dataset: PeerDataset) -> None:
        def add(row: int) -> None:
            self._set.vadd(
                _NAME,
                dataset.base[row].tobytes(),
                str(row),
                # Threads of the server look for neighbours.
                cas=True,
                attributes=dataset.attributes(row),
                quantization=self.quantization,
            )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(len(dataset.base))))

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        options: dict[str, Any] = {"with_scores": True, "count": K, "ef": self.width}
        if condition:
            options["filter"] = f".{condition.attribute} == {condition.value}"
            # For rare values, its documentation advises to inspect as many rows as it takes.
            options["filter_ef"] = self._rows
        found: Any = self._set.vsim(_NAME, vector.tobytes(), **options)
        return list(map(int, found))


class RedisFloat(Redis):
    """The same with vectors kept as float32, for more recall than int8 has."""

    name = "redis-float"
    quantization = QuantizationOptions.NOQUANT


class Pgvector(System):
    """PostgreSQL with pgvector, and psycopg: a connection for each thread, prepared and binary.

    The vectors have unit length, so the inner product is the cosine, as pgvector advises.
    """

    name = "pgvector"
    requirements = "apt: postgresql-17 postgresql-17-pgvector; pip: psycopg[binary] pgvector"
    packages = ("psycopg", "pgvector")
    # The newest that has pgvector.
    extensions = Path("/usr/share/postgresql").glob("*/extension/vector.control")
    version = max((one.parts[4] for one in extensions), default="")
    program = f"/usr/lib/postgresql/{version}/bin/postgres"

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        port = free_port()
        self._thread, self._connections = threading.local(), contextlib.ExitStack()
        self._address = f"host={_HOST} port={port} user=postgres dbname=postgres"
        # PostgreSQL refuses to run as root, and its user must reach the data.
        user = "postgres" if os.getuid() == 0 else None
        if user:
            shutil.chown(folder, user, user)
            folder.parent.chmod(0o711)
        initdb = Path(self.program).with_name("initdb")
        make = f"{initdb} -D data -U postgres -A trust --no-locale -E UTF8"
        run = f"{self.program} -D data -p {port} -k . -c listen_addresses={_HOST}"
        memory = "-c shared_buffers=512MB -c maintenance_work_mem=512MB"
        command = ["sh", "-c", f"{make} && exec {run} {memory}"]
        async with server_process(command, folder, self._cursor, user):
            # The server waits for its clients when it ends.
            with self._connections:
                yield

    def build(self, dataset: PeerDataset) -> None:
        cursor = self._cursor()
        columns = ["id int4 PRIMARY KEY", f"embedding vector({dataset.base.shape[1]})"]
        columns += [f"{name} int4" for name in ATTRIBUTES]
        cursor.execute(f"CREATE TABLE {_NAME} ({', '.join(columns)})")
        with cursor.copy(f"COPY {_NAME} FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "vector", *("int4" for _ in ATTRIBUTES)])
            for row, vector in enumerate(dataset.base):
                copy.write_row([row, vector, *dataset.attributes(row).values()])
        cursor.execute(f"CREATE INDEX ON {_NAME} USING hnsw (embedding vector_ip_ops)")
        for name in ATTRIBUTES:
            cursor.execute(f"CREATE INDEX ON {_NAME} ({name})")
        cursor.execute(f"VACUUM ANALYZE {_NAME}")

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        cursor = self._cursor()
        if self._thread.width != self.width:
            cursor.execute(f"SET hnsw.ef_search = {self.width}")
            self._thread.width = self.width
        where = f"WHERE {condition.attribute} = %(value)s" if condition else ""
        found = cursor.execute(
            f"SELECT id, embedding <#> %(vector)b AS distance FROM {_NAME} {where} "
            f"ORDER BY embedding <#> %(vector)b LIMIT {K}",
            {"vector": vector, "value": condition.value if condition else None},
            prepare=True,
        )
        return [row[0] for row in found.fetchall()]

    def _cursor(self) -> Any:
        """Returns the cursor of the calling thread."""
        if not hasattr(self._thread, "cursor"):
            from pgvector.psycopg import register_vector
            from psycopg import connect

            connection = connect(self._address, autocommit=True, connect_timeout=10)
            self._connections.enter_context(connection)
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
            # A filter may drop all that one walk finds; "relaxed" is advised for recall.
            connection.execute("SET hnsw.iterative_scan = relaxed_order")
            self._thread.cursor, self._thread.width = connection.cursor(binary=True), 0
        return self._thread.cursor


class Milvus(System):
    """Milvus 2.3.5 standalone, the last server that needs no container, and pymilvus.

    Searches do not wait for writes ("Eventually"). The graph has the documented defaults.
    """

    name = "milvus"
    # It listens on all addresses.
    requirements = (
        "make .venv-milvus/.stamp; pip: pymilvus; a network without others: "
        "python -m tests.milvus.network_namespace COMMAND"
    )
    # The packages of the server fit nothing else.
    program = f"{Path(nearline.__file__).parents[1]}/.venv-milvus/bin/milvus-server"
    packages = ("pymilvus",)

    def available(self) -> bool:
        return super().available() and all(name == "lo" for _, name in socket.if_nameindex())

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        import pymilvus

        port = free_port()

        def connect() -> Any:
            client: Any = pymilvus.MilvusClient(f"http://{_HOST}:{port}", timeout=5)
            client.list_collections(timeout=5)
            return client

        command = [self.program, "--data", "data", "--proxy-port", str(port)]
        command += ["--extra-config", "common.session.ttl=10"]
        async with server_process(command, folder, connect) as client:
            with contextlib.closing(client) as self._client:
                yield

    def build(self, dataset: PeerDataset) -> None:
        from pymilvus import DataType

        client: Any = self._client
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dataset.base.shape[1])
        for name in ATTRIBUTES:
            schema.add_field(name, DataType.INT64)
        graph = {"M": 30, "efConstruction": 360}
        index = client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=graph)
        client.create_collection(_NAME, schema=schema)
        for rows in _batches(dataset):
            entities = [
                {"id": row, "vector": dataset.base[row], **dataset.attributes(row)} for row in rows
            ]
            client.insert(_NAME, entities)
        client.flush(_NAME)
        client.create_index(_NAME, index)
        client.load_collection(_NAME)

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        (hits,) = self._client.search(
            _NAME,
            data=[vector],
            anns_field="vector",
            limit=K,
            filter=f"{condition.attribute} == {condition.value}" if condition else "",
            search_params={"params": {"ef": self.width}},
            consistency_level="Eventually",
        )
        return [hit["id"] for hit in hits]


class Chroma(System):
    """Chroma's server, and its HTTP client."""

    name = "chroma"
    requirements = "pip: chromadb"
    program = str(Path(sys.executable).with_name("chroma"))

    @contextlib.asynccontextmanager
    async def serve(self, dataset: PeerDataset, folder: Path) -> AsyncIterator[None]:
        self._folder = folder
        async with contextlib.AsyncExitStack() as self._server:
            await self._start()
            yield

    async def use_width(self, width: int) -> None:
        self._collection.modify(configuration={"hnsw": {"ef_search": width}})
        # The server reads the width when it opens the collection.
        await self._server.aclose()
        await self._start()

    async def _start(self) -> None:
        import chromadb

        port = free_port()

        def connect() -> Any:
            quiet = chromadb.Settings(anonymized_telemetry=False)
            return chromadb.HttpClient(_HOST, port, settings=quiet)

        command = ["env", "ANONYMIZED_TELEMETRY=False", self.program, "run"]
        command += ["--path", "data", "--host", _HOST, "--port", str(port)]
        client = await self._server.enter_async_context(
            server_process(command, self._folder, connect)
        )
        self._collection: Any = client.get_or_create_collection(
            _NAME, configuration={"hnsw": {"space": "ip"}}, embedding_function=None
        )

    def build(self, dataset: PeerDataset) -> None:
        for rows in _batches(dataset):
            self._collection.add(
                ids=[str(row) for row in rows],
                embeddings=dataset.base[rows.start : rows.stop],
                metadatas=[dataset.attributes(row) for row in rows],
            )

    def search(self, vector: NDArray[np.float32], condition: Condition | None) -> Sequence[int]:
        found = self._collection.query(
            query_embeddings=[vector],
            n_results=K,
            where={condition.attribute: condition.value} if condition else None,
            include=["distances"],
        )
        return list(map(int, found["ids"][0]))


def _batches(dataset: PeerDataset) -> Iterator[range]:
    rows = range(len(dataset.base))
    return (rows[first : first + _BATCH] for first in rows[::_BATCH])


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (Nearline(), Floor(), Redis(), RedisFloat(), Pgvector(), Milvus(), Chroma())
}
