"""Builds on a real Ray cluster of this machine, with and without kills."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import psutil
import pyarrow as pa
import pytest

from embedding.settings import EmbeddingSettings
from index_builder.execution import ray_cluster, ray_executor
from index_builder.execution.executor import Job
from index_builder.execution.executor_factory import open_executor
from index_builder.execution.ray_cluster import cluster
from nearline.errors import InvalidRequest, NotReady, Unsupported
from nearline_cli.local.processes import free_port
from tests.index_builder.embedders import HashEmbedder
from tests.index_builder.execution.ray_models import HashModel
from tests.index_builder.live_collection import Living
from tests.optional_packages import needs
from tests.scale import nightly

pytestmark = needs("ray", "ray")
ROOT = Path(__file__).parents[3]
TEXTS = {f"d{n}": f"Text {n}." for n in range(1000)}


@contextlib.contextmanager
def _building(
    living: Living, stall_after: int, *models: str, gpus: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """Builds the corpus of `living` on Ray in a process that ends with the block."""
    folder = living.folder
    corpus, store = folder / "corpus.jsonl", living.options.store
    words = [store, str(corpus), str(folder), str(stall_after), *models]
    # Ray's sockets need a short path, and a driver that is killed leaves its files.
    folders = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with (
        folders as short,
        subprocess.Popen(
            [sys.executable, "-m", "tests.index_builder.execution.ray_build", *words],
            cwd=ROOT,
            # Workers stand elsewhere.
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": short,
                # What Ray is made to believe of this machine.
                "RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": gpus} if gpus else {}),
            },
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _lines(process: subprocess.Popen[str], first: str) -> Iterator[str]:
    """Yields the remainders of lines that begin with a word, until the process ends."""
    assert process.stdout is not None
    for line in process.stdout:
        word, _, rest = line.rstrip("\n").partition(" ")
        assert word in ("listening", "refused", "done", "built"), line
        if word == first:
            yield rest


@pytest.fixture
def living(tmp_path: Path) -> Living:
    found = Living(tmp_path)
    found.corpus(TEXTS, 10)
    os.mkfifo(tmp_path / "stalled")
    return found


@pytest.mark.long
@pytest.mark.service
async def test_a_build_equals_that_of_one_process_after_the_death_of_a_worker(
    living: Living,
) -> None:
    with _building(living, 300, "other", "hash:Text 7.") as process:
        assert set(next(_lines(process, "listening")).split()) <= {
            "127.0.0.1",
            "::ffff:127.0.0.1",
        }
        wrong = next(_lines(process, "refused"))
        assert "workers of the Ray cluster have a model with fingerprint other" in wrong
        assert "with hash" in wrong and "NEARLINE_EMBEDDING_MODEL" in wrong
        poisoned = next(_lines(process, "refused"))
        assert poisoned.startswith("InvalidRequest the embedder refuses a text of document 'd7'")
        (living.folder / "opened.txt").unlink()
        worker = int((living.folder / "stalled").read_text())
        os.kill(worker, signal.SIGKILL)
        embedded, resumed = map(int, next(_lines(process, "built")).split())
        assert process.wait() == 0
    # The worker that was killed, and the one in its place.
    assert len((living.folder / "opened.txt").read_text().splitlines()) >= 2
    assert embedded + resumed == len(TEXTS)
    on_ray, vectors = living.manifest, living.vectors()
    assert living.texts() == TEXTS
    await living.build(living.folder / "corpus.jsonl")
    here = living.manifest
    assert here.snapshot_id != on_ray.snapshot_id
    for key, found in living.vectors().items():
        np.testing.assert_allclose(vectors[key], found, atol=1e-6)
    for name in ("documents", "chunks", "dim", "index_factory", "embedder", "chunking", "quality"):
        assert getattr(here, name) == getattr(on_ray, name), name


@nightly
@pytest.mark.service
async def test_a_build_whose_driver_was_killed_is_resumed_and_leaves_no_worker(
    living: Living,
) -> None:
    with _building(living, 600, gpus=1) as process:
        steps = _lines(process, "done")
        while int(next(steps)) < 256:
            pass
        (living.folder / "stalled").read_text()  # Nothing more comes.
        family = [
            one
            for one in psutil.Process(process.pid).children(recursive=True)
            # They look for the server of the dead cluster for a minute, and end then.
            if "Agent" not in one.name()
        ]
        assert {"raylet", "gcs_server"} <= {one.name() for one in family}
        process.kill()
        left = [*map(int, steps)]
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    assert (living.folder / "opened.txt").read_text().endswith("True\n")  # With its GPU.
    before = Counter((living.folder / "embedded.txt").read_text().splitlines())
    again = HashEmbedder()
    result = await living.build(living.folder / "corpus.jsonl", embedder=again)
    assert result.resumed >= max([256, *left])
    assert result.embedded + result.resumed == len(again.texts) + result.resumed == len(TEXTS)
    assert living.texts() == TEXTS
    assert sum(before.values()) < len(TEXTS)


async def test_an_early_end_releases_its_workers_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    def outcomes(job: object, window: object, gpu_share: object) -> Generator[pa.Table, None, None]:
        try:
            while True:
                yield pa.table({"outcome": [pickle.dumps(InvalidRequest("of no use"))]})
        finally:
            closed.append(True)

    monkeypatch.setattr(ray_executor, "_outcomes", outcomes)
    executor = ray_executor.RayExecutor(HashModel(Path()))
    # Whoever keeps the error keeps the frames that it went through.
    with pytest.raises(InvalidRequest) as kept:
        await executor.run(cast(Job[int, int], None), [1], lambda outcome: None)
    assert closed == [True], kept


@pytest.mark.parametrize(
    ("share", "gpus", "worker"),
    [
        (1.0, [0, 2], (4, 1.0)),
        (0.25, [0, 1], (4, 0.25)),
        (2.0, [2], (4, 2.0)),
        (2.0, [1, 1], (4, 0.0)),
        (0.0, [8], (4, 0.0)),
        (0.5, [0], (4, 0.0)),
    ],
)
def test_a_worker_has_its_share_of_a_gpu_if_a_machine_has_one(
    share: float, gpus: list[int], worker: tuple[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": float(count)}} for count in gpus]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    assert ray_executor._worker_resources(share) == worker


@pytest.mark.parametrize(("device", "used"), [("auto", 0.25), ("cuda:1", 0.25), ("cpu", 0.0)])
def test_workers_on_the_cpu_have_no_share_of_a_gpu(
    device: str, used: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "cluster", lambda address: contextlib.nullcontext())
    settings = EmbeddingSettings.load({"device": device})
    with open_executor("ray", "", lambda: settings, 0.25) as executor:
        assert cast(ray_executor.RayExecutor, executor)._gpu_share == used
    with pytest.raises(InvalidRequest, match=r"ray_gpu_share is 1.5"):
        open_executor("ray", "", lambda: settings, 1.5).__enter__()


def test_ray_is_imported_only_for_its_executor() -> None:
    code = (
        "import index_builder.__main__, index_builder.pipeline.builder, sys\n"
        "import nearline_cli.commands.build\n"
        "from index_builder.execution.executor_factory import open_executor\n"
        "with open_executor('local', '', dict): print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


def test_without_ray_the_error_names_its_installation() -> None:
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "from index_builder.execution.ray_cluster import cluster\n"
        "with cluster(''): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "Unsupported: executor ray needs Ray" in done.stderr
    assert "pip install 'nearline-server[ray]'" in done.stderr and "--executor local" in done.stderr


def test_a_ray_client_is_refused() -> None:
    with pytest.raises(Unsupported, match="ray job submit"), cluster("ray://127.0.0.1:10001"):
        raise AssertionError("it must not get here")


def test_an_unreachable_address_fails_at_once() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(NotReady, match=f"no Ray cluster at {address}: .*refused"), cluster(address):
        raise AssertionError("it must not get here")


@pytest.mark.parametrize(
    ("name", "address", "said"),
    [
        ("dask", "", "executor is 'dask'; use one of local, ray"),
        ("local", "auto", "ray_address auto"),
    ],
)
def test_an_unknown_executor_is_refused(name: str, address: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said), open_executor(name, address, _none):
        raise AssertionError("it must not get here")


def _none() -> EmbeddingSettings:
    raise AssertionError("the model is not needed")
