"""A Redis Cluster of bundled servers on this machine, whose nodes can be killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nearline_cli.local.bundled_redis import HOST, command, find_program
from nearline_cli.local.processes import free_port
from retrieval.redis_client.connection import REDIS_FAILURES, connect
from tests import waits

_START_S = 30.0
_until = partial(waits.until, timeout_s=_START_S, every_s=0.02)
_SLOTS = 16_384
# Becomes the server, which ends with this process, however that ends.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
os.execv(sys.argv[1], sys.argv[1:])
"""


class ClusterProcess:
    """A server of the cluster.

    Args:
        folder: Where its data are.
        settings: Settings of the server besides those of the bundled one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        # The default is 10,000 above the port, which may be no port at all.
        self._bus_port = free_port()
        self._folder = folder
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self.client = connect(f"redis://{HOST}:{self.port}/0", timeout_s=_START_S)

    async def start(self) -> None:
        """Starts the server, with the data of the last time, and waits until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        words = command(find_program(), self._folder, self.port)
        options = {
            "cluster-enabled": "yes",
            "cluster-port": str(self._bus_port),
            **self._settings,
        }
        for name, value in options.items():
            words += [f"--{name}", value]
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCHER),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await _until(self._answers)

    async def kill(self) -> None:
        """Kills the server at once (SIGKILL)."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Kills the server, and closes the connections to it."""
        await self.kill()
        await self.client.aclose()

    async def ask(self, *words: str | int) -> Any:
        """Returns the reply to a command."""
        return await self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def id(self) -> str:
        """Returns the id of the server in the cluster."""
        return str((await self.ask("CLUSTER MYID")).decode())

    async def is_primary(self) -> bool:
        """Returns whether it is a primary."""
        return bool((await self.ask("ROLE"))[0] == b"master")

    async def sees_all(self, nodes: int) -> bool:
        """Returns whether it serves all slots, and knows this many nodes."""
        info = await self.ask("CLUSTER INFO")
        if isinstance(info, bytes):
            info = dict(line.split(":") for line in info.decode().split())
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes

    async def in_sync(self) -> bool:
        """Returns whether it is a replica that has all data of its primary."""
        role = await self.ask("ROLE")
        return bool(role[0] == b"slave" and role[3] == b"connected")

    async def _answers(self) -> bool:
        if self._process is not None and self._process.returncode is not None:
            raise RuntimeError(f"a Redis ended: {(self._folder / 'log').read_text()}")
        with contextlib.suppress(*REDIS_FAILURES):
            return bool(await self.client.ping())
        return False


class LocalCluster:
    """Primaries, each followed by its replica in the order of `nodes`, if there are replicas."""

    def __init__(self, primaries: list[ClusterProcess], replicas: list[ClusterProcess]) -> None:
        self.primaries = primaries
        self.replicas = replicas

    @property
    def nodes(self) -> list[ClusterProcess]:
        """All servers, primaries first."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The address of the cluster: its first three nodes."""
        return "redis+cluster://" + ",".join(f"{HOST}:{one.port}" for one in self.primaries)

    async def form(self) -> None:
        """Makes one cluster of the servers, and waits until it serves."""
        first = self.primaries[0]
        share = -(-_SLOTS // len(self.primaries))
        for number, node in enumerate(self.nodes):
            await node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                await node.ask("CLUSTER MEET", HOST, first.port, first._bus_port)
        for number, node in enumerate(self.primaries):
            slots = (number * share, min((number + 1) * share, _SLOTS) - 1)
            await node.ask("CLUSTER ADDSLOTSRANGE", *slots)
        await self.wait_until_whole()
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            await replica.ask("CLUSTER REPLICATE", await primary.id())
        for replica in self.replicas:
            await _until(replica.in_sync)

    async def wait_until_whole(self) -> None:
        """Waits until every server sees all others, and all slots are served."""
        for node in self.nodes:
            await _until(partial(node.sees_all, len(self.nodes)))


@contextlib.asynccontextmanager
async def local_cluster(
    *, primaries: int = 3, replicas: bool = False, node_timeout_ms: int = 1_000
) -> AsyncIterator[LocalCluster]:
    """Runs a cluster for the length of the block.

    Args:
        primaries: Number of primaries.
        replicas: Whether each primary has a replica.
        node_timeout_ms: Time without an answer after which a node has failed.
    """
    options = {
        "cluster-node-timeout": str(node_timeout_ms),
        # Replicas are in step sooner.
        "repl-diskless-sync-delay": "0",
    }
    count = primaries * (2 if replicas else 1)
    with tempfile.TemporaryDirectory() as folder:
        nodes = [ClusterProcess(Path(folder) / str(one), options) for one in range(count)]
        try:
            await asyncio.gather(*(one.start() for one in nodes))
            cluster = LocalCluster(nodes[:primaries], nodes[primaries:])
            await cluster.form()
            yield cluster
        finally:
            await asyncio.gather(*(one.close() for one in nodes))
