"""The audit log survives rotation and full disks, and never stops a call."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from nearline.access.audit_log import AuditLog
from nearline.access.caller import Caller
from nearline.errors import SettingsError

ANNA = Caller("shop", name="k1")


def write(log: AuditLog, request_id: str) -> None:
    log.write(
        ANNA,
        "DeleteItems",
        collection="products",
        result="OK",
        request_id=request_id,
        peer="ipv4:127.0.0.1:1",
    )


def ids(path: Path) -> list[str]:
    return [json.loads(line)["request_id"] for line in path.read_text("utf-8").splitlines()]


def test_a_line_names_who_did_what_with_which_result(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    write(log, "a")
    log.close()
    (line,) = (tmp_path / "audit.jsonl").read_text("utf-8").splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "caller": "k1",
        "tenant": "shop",
        "method": "DeleteItems",
        "collection": "products",
        "subject": "",
        "result": "OK",
        "request_id": "a",
        "peer": "ipv4:127.0.0.1:1",
    }


def test_a_log_that_was_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    one, other = AuditLog(path), AuditLog(path)
    write(one, "a")
    path.rename(tmp_path / "audit.1")
    write(one, "b")
    write(other, "c")
    path.unlink()
    write(one, "d")
    assert ids(tmp_path / "audit.1") == ["a"]
    assert ids(path) == ["d"]
    assert path.stat().st_mode & 0o077 == 0
    one.close()
    other.close()


def test_lines_of_several_processes_are_whole_and_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    logs = [AuditLog(path) for _ in range(3)]
    for number in range(30):
        write(logs[number % 3], str(number))
    assert ids(path) == [str(number) for number in range(30)]
    for log in logs:
        log.close()


def test_a_line_that_cannot_be_written_is_an_error_of_the_log_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = AuditLog(full)
    with caplog.at_level(logging.ERROR):
        write(log, "a")
    assert "cannot be written" in caplog.text
    log.close()


def test_a_log_that_cannot_be_opened_is_named_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--audit-log"):
        AuditLog(tmp_path / "absent" / "audit.jsonl")
    assert not os.path.exists(tmp_path / "absent")
