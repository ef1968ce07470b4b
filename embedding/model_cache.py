"""The cache of a model: converted graph, reference vectors, selected backend."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedding.model import EmbeddingModel
from embedding.reference_texts import REFERENCE_ID
from nearline.errors import NotReady, StoreError

# Raised when the conversion itself changes.
_CONVERSION = 1
_CONVERTING = "converting-"
_LOCK_POLL_S = 0.05
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def installed_version(package: str) -> str:
    """Returns the version of an installed distribution; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


class ModelCache:
    """The folder of one model in the cache. Files appear whole or not at all.

    Args:
        folder: Cache folder of nearline.
        model: The model.
        prepared: Cache folder that is read first and never written, such as that of an image.
            Optional.
    """

    def __init__(self, folder: Path, model: EmbeddingModel, prepared: Path | None = None) -> None:
        self.folder = folder / "embedding" / model.fingerprint
        self._prepared = prepared and prepared / "embedding" / model.fingerprint

    @property
    def graph_folder(self) -> Path:
        """Folder of the graph for the installed OpenVINO: model.xml and model.bin."""
        return self._find(f"openvino-{installed_version('openvino')}-{_CONVERSION}")

    @property
    def graph(self) -> Path:
        """The converted graph."""
        return self.graph_folder / "model.xml"

    @property
    def reference_file(self) -> Path:
        """Golden vectors of the fp32 reference."""
        return self._find(f"golden-{REFERENCE_ID}.npy")

    def _find(self, name: str) -> Path:
        """Returns the path of a converted file: the prepared one if there is one."""
        if self._prepared and (self._prepared / name).exists():
            return self._prepared / name
        return self.folder / name

    def reference(self) -> NDArray[np.float32] | None:
        """Reads the golden vectors, (n, dim) float32; None if there are none.

        Raises: NotReady: the file is damaged.
        """
        try:
            vectors: NDArray[np.float32] = np.load(self.reference_file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            raise NotReady(
                f"{self.reference_file} is damaged ({error}); delete it and start again"
            ) from error
        return vectors

    def choice_file(self, facts: Mapping[str, object]) -> Path:
        """Returns the file of a choice made on this machine, given these facts (such as limits)."""
        key = {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "openvino": installed_version("openvino"),
            "torch": installed_version("torch"),
            "golden": REFERENCE_ID,
            **facts,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"choice-{digest}.json"

    def write(self, file: Path, data: bytes) -> None:
        """Writes a file atomically: a reader sees either the old or the complete new file.

        Raises: StoreError: the cache folder cannot be written.
        """
        with self.temporary("writing-") as folder:
            new = folder / file.name
            new.write_bytes(data)
            os.replace(new, file)

    def sweep(self) -> None:
        """Removes the leftovers of a killed conversion; call it while holding the lock."""
        for folder in self.folder.glob(f"{_CONVERTING}*"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def temporary(self, prefix: str = _CONVERTING) -> Iterator[Path]:
        """Yields a temporary folder on the same file system; it is removed at the end.

        Raises: StoreError: the cache folder cannot be written.
        """
        with self._writable():
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=prefix) as folder:
                yield Path(folder)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Excludes other processes that would write the same files; the lock ends with the process.

        Raises: StoreError: the cache folder cannot be written.
        """
        with self._writable():
            stream = (self.folder / "lock").open("w")
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    @contextlib.asynccontextmanager
    async def measuring(self) -> AsyncIterator[None]:
        """Excludes other processes that would choose a backend; the lock ends with the process.

        Raises: StoreError: the cache folder cannot be written.
        """
        with self._writable():
            stream = (self.folder / "measuring").open("w")
        with stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_POLL_S)
            yield

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Creates the folder; an error of the block is one of the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write the model cache {self.folder}: {error.strerror or error}; set "
                "--cache-dir or NEARLINE_CACHE_DIR to a folder that can be written"
            ) from error


def cpu_name() -> str:
    """Returns the name of the processor, with the features that affect speed."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        has = facts.get("flags", "").split()
        flags = [flag for flag in _FLAGS if flag in has]
        name = facts.get("model name", platform.machine())
        return " ".join((name, facts.get("model", ""), *flags))
    return platform.processor() or platform.machine()
