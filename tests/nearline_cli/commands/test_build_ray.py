"""Tests of `nearline build --executor ray` with the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nearline.clients import EmbeddingClient
from nearline_cli.local.processes import embedding_process
from tests.index_builder.live_collection import Living
from tests.optional_packages import needs
from tests.scale import nightly

pytestmark = needs("ray", "ray")
ROOT = Path(__file__).parents[3]
TEXTS = {f"d{n}": f"Number {n} is {'even' if n % 2 == 0 else 'odd'}. " * (1 + n) for n in range(40)}


@nightly
@pytest.mark.service
async def test_a_build_on_ray_equals_a_local_build(tmp_path: Path) -> None:
    living = Living(tmp_path)
    corpus = living.corpus(TEXTS, 10)
    words = ["build", "--corpus", str(corpus), "--store", living.options.store, "--json"]
    words += ["--golden-queries", "0", "--executor", "ray"]
    # In bf16 a vector differs by 1e-3 with what else is in its batch; in f32 by 2e-7.
    async with embedding_process(["--precision", "f32"]) as service:
        done = subprocess.run(
            [sys.executable, "-m", "nearline_cli.main", *words, "--embedding", service.address],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "NEARLINE_EMBEDDING_PRECISION": "f32",
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        on_ray, vectors = living.manifest, living.vectors()
        assert json.loads(done.stdout)["embedded"] == on_ray.chunks
        async with EmbeddingClient(service.address) as client:
            await living.build(corpus, embedder=client)
    here = living.manifest
    assert (here.chunks, here.embedder) == (on_ray.chunks, on_ray.embedder)
    assert living.texts() == TEXTS
    for key, found in living.vectors().items():
        np.testing.assert_allclose(vectors[key], found, atol=1e-6)
