"""A program that is the first process of a container ends at SIGTERM from its first moment on."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("embedding", "gateway", "generation", "index_builder", "nearline_cli", "retrieval")
# Libraries that take long to import; every service has the first.
HEAVY = ("cygrpc", "numpy")
_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_AS_ROOT = () if os.getuid() == 0 else ("--user", "--map-root-user")


def programs() -> list[str]:
    """Returns the modules that images and the command line start."""
    found = [
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "\n    serving.run(" in path.read_text("utf-8")
    ]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]
    return ["nearline_cli.main", *modules]


@pytest.mark.parametrize("module", programs())
def test_a_program_imports_the_handler_first(module: str) -> None:
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert ast.unparse(imports[0]) == "from __future__ import annotations"
    assert ast.unparse(imports[1]) == "import nearline.early_stop"


def _first_process(unshare: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    while unshare.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
    pytest.fail("unshare has ended")


def _catches(pid: int, number: signal.Signals) -> bool:
    [line] = [one for one in _lines(pid, "status") if one.startswith("SigCgt:")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def _lines(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_text("utf-8").splitlines()


@pytest.mark.service
@pytest.mark.parametrize("module", ["retrieval", "gateway", "index_builder", "nearline_cli.main"])
def test_the_first_process_of_a_container_ends_while_it_imports(module: str) -> None:
    if not shutil.which("unshare"):
        pytest.skip("a namespace of processes needs unshare of util-linux")
    probe = subprocess.run([*_NAMESPACE, *_AS_ROOT, "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"no namespace of processes may be made here: {probe.stderr.decode()}")
    words = (sys.executable, "-P", "-m", module, "--help")
    with subprocess.Popen((*_NAMESPACE, *_AS_ROOT, *words), stdout=subprocess.DEVNULL) as unshare:
        pid = _first_process(unshare)
        deadline = time.monotonic() + 20
        while not _catches(pid, signal.SIGTERM):
            assert time.monotonic() < deadline
        loaded = [one for one in _lines(pid, "maps") if any(name in one for name in HEAVY)]
        os.kill(pid, signal.SIGTERM)
        assert unshare.wait(20) == 128 + signal.SIGTERM
    assert not loaded
