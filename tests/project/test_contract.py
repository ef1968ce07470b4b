"""`buf breaking`, as `make check` runs it, fails where the public contract is broken."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "tests/fixtures/release_0_2_0/protos.binpb"
BUF = Path(sys.executable).with_name("buf")


def _breaks(protos: Path) -> str:
    """Returns what breaks the contract of the release; an empty string if nothing does."""
    command = [str(BUF), "breaking", str(protos), "--against", str(RELEASED)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", ["retrieval", "admin", "snapshot", "types"])
def test_a_public_field_may_not_be_renamed_nor_its_file_moved(name: str, tmp_path: Path) -> None:
    protos = tmp_path / "proto"
    shutil.copytree(ROOT / "proto", protos)
    file = protos / f"nearline/v1/{name}.proto"
    text = file.read_text("utf-8")
    changed = text.replace(" = 1;", "_old = 1;")
    assert changed != text
    file.write_text(changed)
    assert f"{name}.proto" in _breaks(protos)


def test_the_protos_of_this_version_break_nothing() -> None:
    assert _breaks(ROOT / "proto") == ""
