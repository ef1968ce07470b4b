"""The audit log survives rotation and full disks, and never stops a call."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from nearline.access import audit_log
from nearline.access.audit_log import AuditLog
from nearline.access.caller import Caller
from nearline.errors import SettingsError

ANNA = Caller("shop", name="k1")


def write(log: AuditLog, request_id: str, caller: Caller | None = ANNA, result: str = "OK") -> None:
    log.write(
        caller,
        "DeleteItems",
        collection="products",
        result=result,
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


def test_refusals_are_left_out_for_a_minute_of_each_caller_apart_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(audit_log, "time", SimpleNamespace(monotonic=lambda: now_s))
    log = AuditLog(tmp_path / "audit.jsonl")

    def refuse(caller: Caller | None, count: int) -> None:
        for _ in range(count):
            write(log, "a", caller, "PERMISSION_DENIED")

    refuse(ANNA, 103)
    refuse(None, 1)
    now_s += 59.0
    refuse(ANNA, 1)
    # A minute from the first refusal, whenever the last one was.
    now_s += 1.0
    refuse(ANNA, 102)
    write(log, "b")
    log.close()
    lines = map(json.loads, (tmp_path / "audit.jsonl").read_text("utf-8").splitlines())
    first, second = [("k1", 0)] * 100 + [("", 3)], [("k1", 1)] + [("k1", 0)] * 99 + [("k1", 2)]
    assert [(one["caller"], one.get("left_out", 0)) for one in lines] == first + second
