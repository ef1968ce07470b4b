"""Redis vector sets (Redis 8), called by redis-py."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray
from redis.commands.vectorset.commands import QuantizationOptions

from benchmarks.peers.client_threads import in_threads
from benchmarks.peers.dataset import Condition, PeerDataset, row_id
from benchmarks.peers.server_process import server_process
from benchmarks.peers.system import PeerClient, Place, System
from nearline_cli.local.processes import free_port

_KEY = "items"
_PROGRAM = "redis-server"
_TIMEOUT_S = 30.0
_CONNECTIONS = 64


class RedisClient(PeerClient):
    """redis-py with its pool of connections; vectors travel as FP32, and are kept as int8."""

    # None is the server's default, int8.
    quantization: QuantizationOptions | None = None

    def __init__(self, address: str, dataset: PeerDataset) -> None:
        super().__init__(address, dataset)
        self._redis = redis.Redis.from_url(
            address,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            max_connections=_CONNECTIONS,
        )
        self._vectors = self._redis.vset()

    def load(self) -> None:
        rows = range(len(self.dataset.base))
        in_threads(lambda part: self.upsert(rows[part], self.dataset.base[part]), len(rows))

    def search(
        self,
        vector: NDArray[np.float32],
        width: int,
        condition: Condition | None,
        payload: bool,
    ) -> Sequence[int]:
        found: Any = self._vectors.vsim(
            _KEY,
            vector.tobytes(),
            with_scores=True,
            count=self.dataset.k,
            ef=width,
            **self._filter(condition),
        )
        if payload and found:
            self._redis.mget(map(_text_key, found))
        return list(map(int, found))

    def upsert(self, rows: Sequence[int], vectors: NDArray[np.float32]) -> None:
        for row, vector in zip(rows, vectors, strict=True):
            # CAS lets threads of the server look for neighbours.
            self._vectors.vadd(
                _KEY,
                vector.tobytes(),
                row_id(row),
                cas=True,
                attributes=self.dataset.attributes(row),
                quantization=self.quantization,
            )
        self._redis.mset({_text_key(row_id(row)): self.dataset.text(row) for row in rows})

    def close(self) -> None:
        self._redis.close()

    def _filter(self, condition: Condition | None) -> dict[str, Any]:
        if condition is None:
            return {}
        # For rare values, its documentation advises to inspect as many rows as it takes.
        return {
            "filter": f".{condition.attribute} == {condition.value}",
            "filter_ef": len(self.dataset.base),
        }


class RedisFloatClient(RedisClient):
    """The same with vectors kept as float32."""

    quantization = QuantizationOptions.NOQUANT


def _text_key(name: str) -> str:
    return f"text:{name}"


@contextlib.asynccontextmanager
async def _serve(place: Place) -> AsyncIterator[str]:
    port = free_port()
    probe = redis.Redis(host="127.0.0.1", port=port, socket_timeout=_TIMEOUT_S)

    def ready() -> bool:
        # While it loads, it answers with an error.
        with contextlib.suppress(redis.RedisError):
            return bool(probe.ping())
        return False

    # Saved at its end, and after an hour.
    command = [_PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "3600 1"]
    command += ["--dir", str(place.folder)]
    async with server_process(command, place.folder / "redis.log", ready):
        probe.close()
        yield f"redis://127.0.0.1:{port}/0"


def _missing() -> str:
    if shutil.which(_PROGRAM) is None:
        return "apt: redis-server, version 8 or newer"
    said = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"v=(\d+)", said.stdout)
    if version is None or int(version[1]) < 8:
        return f"apt: redis-server, version 8 or newer; found: {said.stdout.strip()}"
    return ""


REDIS = System(
    name="redis",
    label="Redis vector set (M 16, int8)",
    client=RedisClient,
    serve=_serve,
    missing=_missing,
)

# For more recall than int8 has.
REDIS_FLOAT = replace(
    REDIS,
    name="redis-float",
    label="Redis vector set (M 16, float32)",
    client=RedisFloatClient,
)
