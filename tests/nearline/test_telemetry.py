"""Logs are JSON lines and contain the life cycle at every level."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from nearline.telemetry import JsonFormatter


def test_a_record_is_one_json_object_with_its_extra_fields() -> None:
    record = logging.makeLogRecord({"msg": "loaded", "levelno": 20, "levelname": "INFO", "k": 3})
    line = json.loads(JsonFormatter("shard").format(record))
    assert (line["event"], line["service"], line["level"], line["k"]) == (
        "loaded",
        "shard",
        "info",
        3,
    )


@pytest.mark.parametrize(("level", "lines"), [("error", 1), ("debug", 2)])
def test_the_life_cycle_is_logged_at_every_level(level: str, lines: int) -> None:
    code = (
        "import logging; from nearline.telemetry import configure_logging;"
        f"configure_logging({level!r}, 's');"
        "logging.getLogger('nearline.serving').info('serving');"
        "logging.getLogger('other').info('chatter')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == lines
    assert json.loads(done.stderr.splitlines()[0])["event"] == "serving"


@pytest.mark.parametrize("module", ["retrieval", "retrieval.shard_server", "embedding"])
@pytest.mark.service
def test_a_service_says_which_setting_it_refuses(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--prot", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "the nearest known one is port" in json.loads(done.stderr.splitlines()[-1])["reason"]
