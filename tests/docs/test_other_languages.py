"""The page on other languages: its sample runs, and the retry policy is that of our own clients."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline.channel import SERVICE_CONFIG
from nearline.contract import Item
from nearline_cli.local.processes import RETRIEVAL_SERVICES, service_process

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "other-languages.md"
# Where the packages of tests/docs/node are installed.
MODULES = Path(os.environ.get("NEARLINE_TEST_NODE", "nowhere"), "node_modules")


def test_the_retry_policy_for_other_languages_is_our_own() -> None:
    assert json.loads((ROOT / "proto" / "service_config.json").read_text("utf-8")) == SERVICE_CONFIG


@pytest.mark.service
@pytest.mark.skipif(
    not MODULES.is_dir() or shutil.which("node") is None,
    reason="the sample in JavaScript needs Node and npm: make test-integrations",
)
async def test_the_sample_in_javascript_finds_items_and_shows_errors(tmp_path: Path) -> None:
    items = [
        Item(id=f"d{row}", text=f"document {row}", vector=vector)
        for row, vector in enumerate(np.eye(3, dtype=np.float32))
    ]
    await build_snapshot(items, BuildOptions(store=str(tmp_path / "store"), lexical=False))
    (name, sample), *_ = re.findall(
        r"^```js (\S+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S
    )
    (tmp_path / name).write_text(sample, "utf-8")
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    (tmp_path / "node_modules").symlink_to(MODULES.resolve())
    words = ("--store", str(tmp_path / "store"))
    async with service_process("retrieval", words, ready_services=RETRIEVAL_SERVICES) as router:

        def run(vector: str) -> str:
            line = ["node", name, router.address, vector]
            done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert run("[0, 1, 0]").splitlines()[0] == "d1 1.000"
        assert re.match(r"INVALID_ARGUMENT query.vector has dim 2, .*\n\d+ bytes", run("[0, 1]"))
