"""Tests of errors in a first trial: each says what was found and what to do about it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nearline.store.snapshot import Store
from tests.nearline_cli.conftest import Run, Up
from tests.redis_server import needs_redis

pytestmark = pytest.mark.service

Refused = Callable[..., str]


@pytest.fixture
def refused(nearline: Run) -> Refused:
    """Returns what runs a line that fails, and gives its error."""

    def run(line: str, *words: str) -> str:
        done = nearline(*line.split(), *words)
        assert done.returncode in (1, 2) and done.stderr.startswith("nearline: "), done
        return done.stderr

    return run


def test_no_default_collection_names_those_that_there_are(refused: Refused, store: Path) -> None:
    (store / "default").rename(store / "shop")
    said = refused("snapshots show --store", str(store))
    assert f"store {store}, which has 'shop'; name another collection or store" in said


def test_a_wrong_folder_for_the_store_is_named(refused: Refused, tmp_path: Path) -> None:
    said = refused("snapshots list")
    assert f"store {tmp_path}/.nearline/store has no collection" in said
    assert "name another one (--store, NEARLINE_STORE), or build one: nearline build" in said


def test_a_service_that_does_not_run_is_named_with_how_to_start_it(refused: Refused) -> None:
    for line in ("search a", "ask a", "jobs list", "items show a"):
        said = refused(f"{line} --address 127.0.0.1:1")
        assert said.startswith("nearline: 127.0.0.1:1 does not answer")
        assert "start the services with `nearline up`, or correct the address" in said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:7706", "give HOST:PORT, such as 127.0.0.1:7700; that of HTTP is for"),
        ("7700", "--address is '7700'; give HOST:PORT, such as 127.0.0.1:7700"),
        ("127.0.0.1:99999", "--address is '127.0.0.1:99999'; give HOST:PORT"),
        ("nowhere.invalid:7700", "correct the address: HOST:PORT, such as 127.0.0.1:7700"),
    ],
)
def test_a_wrong_address_is_named_with_a_right_one(
    refused: Refused, address: str, said: str
) -> None:
    assert said in refused(f"count --address {address}")


def test_a_file_that_cannot_be_read_is_named(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,text\na,hello\n")
    whole = Path.open

    def opened(path: Path, *words: object, **named: object) -> object:
        if path == file:
            # Whoever runs the tests may be allowed to read everything.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return whole(path, *words, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)
    said = refused("build --vector-column v --corpus", str(file))
    assert f"{file} cannot be read: Permission denied; let this user read it, or leave" in said


def test_a_broken_line_of_a_table_is_named_by_its_number(refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for row, why in (("b,two,cells", "3 cells, the header has 2"), ('b,"open', "a quote is never")):
        file.write_text(f"id,v\na,[1]\n{row}\n")
        said = refused("build --vector-column v --corpus", str(file))
        assert "fix them, or leave them out with --max-bad-rows 1" in said
        assert f"{file}:3: {why}" in said


def test_an_empty_folder_is_named_with_the_types_that_are_read(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    said = refused("build --corpus", str(tmp_path / "empty"))
    assert "empty contains no readable file; supported types are ." in said and ".csv" in said


def test_a_wrong_snapshot_id_is_answered_with_the_nearest(refused: Refused, store: Path) -> None:
    (right,) = Store(store).snapshot_ids("default")
    absent = right[:-1] + ("0" if right[-1] != "0" else "1")
    for line in ("snapshots show", "snapshots promote", "snapshots gate", "rollout start"):
        for wrong in (right[:-1], absent):
            said = refused(f"{line} {wrong} --store", str(store))
            assert f"did you mean {right}?" in said and "nearline snapshots list" in said


def test_a_full_disk_is_named_with_the_store(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": "a", "text": "b", "v": [1.0]}))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    said = refused("build --vector-column v --corpus", str(file))
    assert f"work folder {tmp_path}" in said and "free some space or choose another" in said


@needs_redis
@pytest.mark.long
def test_a_lost_folder_of_redis_is_named_with_how_to_go_on(
    refused: Refused, store: Path, up: Callable[..., Up], nearline: Run, nearline_process: Run
) -> None:
    running = up(redis=True)
    row = json.dumps({"id": "x", "v": [1.0] + [0.0] * 31})
    (store.parent / "new.jsonl").write_text(row)
    words = ("items", "upsert", "new.jsonl", "--vector-column", "v")
    written = nearline(*words, "--address", running.address)
    assert written.returncode == 0, written.stderr
    running.process.terminate()
    running.process.wait(timeout=30)
    shutil.rmtree(store / ".redis")
    ended = nearline_process("up", "--store", str(store), "--port", "0", "--no-http")
    assert ended.returncode == 1
    assert "it was emptied, or is another one" in ended.stderr
    assert "start a new log: nearline changes reset" in ended.stderr
    there = ("--store", str(store), "--redis", "redis://127.0.0.1:1/0")
    said = refused("changes reset", *there)
    assert "later ones are lost" in said and "add --yes to do it" in said
    assert nearline("changes", "reset", "--yes", *there).returncode == 0


def test_a_wrong_key_or_certificate_is_named_with_the_remedy(
    refused: Refused,
    nearline: Run,
    up: Callable[..., Up],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(*words: str) -> str:
        done = nearline("keys", "create", "--file", "keys.toml", "--json", *words)
        return str(json.loads(done.stdout)["key"])

    nearline("certs", "certs")
    nearline("certs", "other")
    service, reader = key("--right", "service", "--tenant", "*"), key()
    expired = key("--expires", "1ms")
    for name, value in {
        "TLS_CERT": tmp_path / "certs" / "nearline.pem",
        "TLS_KEY": tmp_path / "certs" / "nearline.key",
        "TLS_CA": tmp_path / "certs" / "ca.pem",
        "KEYS": tmp_path / "keys.toml",
        "TOKEN": service,
    }.items():
        monkeypatch.setenv(f"NEARLINE_{name}", str(value))
    where = f"--address {up().address}"
    for name in ("TLS_CERT", "TLS_KEY", "KEYS", "TOKEN"):
        monkeypatch.delenv(f"NEARLINE_{name}")
    assert "or set NEARLINE_TOKEN" in refused(f"count {where}")
    monkeypatch.setenv("NEARLINE_TOKEN", expired)
    assert "has expired; ask the operator for a new one" in refused(f"count {where}")
    monkeypatch.setenv("NEARLINE_TOKEN", reader)
    assert "ask the operator for a key with that right" in refused(f"items delete a --yes {where}")
    # No such collection, and one that there is already.
    assert "the closest names are: 'default'" in refused(f"count -c defalt {where}")
    monkeypatch.setenv("NEARLINE_TOKEN", service)
    said = refused(f"collections create default --dim 2 {where}")
    assert "choose another name, or drop it first: nearline collections drop default" in said
    # TLS where there is none, none where there is, and another authority.
    monkeypatch.setenv("NEARLINE_TLS_CA", str(tmp_path / "other" / "ca.pem"))
    assert "name the authority that signed it" in refused(f"count {where}")
    monkeypatch.delenv("NEARLINE_TLS_CA")
    assert "if it uses TLS, set NEARLINE_TLS_CA" in refused(f"count {where}")
