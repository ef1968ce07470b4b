"""`nearline mcp` refuses what it could not do, before it serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nearline.errors import InvalidRequest, SettingsError
from nearline_cli.commands.mcp import mcp


def test_a_credential_does_not_travel_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARLINE_TLS_CA", raising=False)
    monkeypatch.delenv("NEARLINE_INSECURE", raising=False)
    with pytest.raises(SettingsError, match="would travel unencrypted to shop") as no:
        mcp(address="shop.example:7700", token="nl_x")
    assert "NEARLINE_INSECURE=true" in no.value.message


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="give HOST:PORT"):
        mcp(address="localhost")


@pytest.mark.parametrize("given", ["</dev/null", "<&-", "<FILE"])
def test_an_input_that_is_no_pipe_is_read_to_its_end(given: str, tmp_path: Path) -> None:
    ping = tmp_path / "ping.jsonl"
    ping.write_text('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    line = f'exec "{sys.executable}" -m nearline_cli.main mcp {given.replace("FILE", str(ping))}'
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done
    assert done.stdout == ('{"jsonrpc":"2.0","id":1,"result":{}}\n' if "FILE" in given else "")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.mcp.stdio", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    with pytest.raises(SettingsError, match=r"pip install 'nearline-server\[gateway\]'"):
        mcp()
