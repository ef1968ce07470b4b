"""`nearline mcp` refuses what it could not do, before it serves."""

from __future__ import annotations

import sys

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


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.mcp.stdio", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    with pytest.raises(SettingsError, match=r"pip install 'nearline-server\[gateway\]'"):
        mcp()
