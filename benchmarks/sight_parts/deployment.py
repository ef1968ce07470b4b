"""A deployment to look at: `nearline up` with every service, and a Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.sight_parts.expressions import PROMETHEUS, ROOT
from index_builder.documents import python_docs
from nearline.errors import NotReady
from nearline_cli.local.processes import free_port

DOCUMENTS = 600
SHARDS = 2
_COMMAND = (sys.executable, "-m", "nearline_cli.main")
_EACH_ALONE = ("--separate", "--replicas", "2", "--workers", "2", "--min-workers", "1")
_BUILD_S = 400.0
_READY_S = 180.0
_STOP_S = 40.0


def find_prometheus(given: str) -> str:
    """Returns the path of the program. Raises: NotReady: there is none."""
    kept = ROOT / ".cache" / "deploy-tools" / "usr" / "bin" / "prometheus"
    found = given or shutil.which("prometheus") or (str(kept) if kept.exists() else "")
    if not found:
        raise NotReady(
            "there is no Prometheus here: install Debian's package prometheus, or name the program "
            "with --prometheus"
        )
    return found


async def run_command(environ: Mapping[str, str], *words: str) -> str:
    """Runs a `nearline` command; returns what it writes. Raises: NotReady: it fails."""
    process = await asyncio.create_subprocess_exec(
        *(*_COMMAND, *words), env=environ, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(_BUILD_S):
        out, _ = await process.communicate()
    text = out.decode("utf-8", "replace")
    if process.returncode:
        raise NotReady(f"nearline {' '.join(words)} failed; its last lines:\n{text[-2000:]}")
    return text


async def key_environ(folder: Path, *, tls: bool) -> dict[str, str]:
    """Returns the environment of services that demand a key, and of those that have one."""
    words = ("--file", str(folder / "keys.toml"), "--tenant", "*", "--right", "service", "--json")
    key = json.loads(await run_command(os.environ, "keys", "create", *words))["key"]
    found = {**os.environ, "NEARLINE_KEYS": str(folder / "keys.toml"), "NEARLINE_TOKEN": key}
    return found | (await tls_environ(folder) if tls else {})


async def tls_environ(folder: Path) -> dict[str, str]:
    """Returns the variables of services with certificates that it makes."""
    made = json.loads(await run_command(os.environ, "certs", str(folder / "certs"), "--json"))
    return {
        "NEARLINE_TLS_CERT": made["certificate"],
        "NEARLINE_TLS_KEY": made["key"],
        "NEARLINE_TLS_CA": made["authority"],
    }


async def build_store(folder: Path, environ: Mapping[str, str]) -> Path:
    """Builds a store from entries of Python's documentation and made-up interactions."""
    corpus = folder / "corpus.jsonl"
    await asyncio.to_thread(python_docs.write_corpus, corpus)
    lines = corpus.read_text("utf-8").splitlines(keepends=True)
    step = max(1, len(lines) // DOCUMENTS)
    kept = lines[::step][:DOCUMENTS]
    corpus.write_text("".join(kept), "utf-8")
    ids = item_ids(folder)
    dice = random.Random(7)
    with (folder / "interactions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user", "item", "time"))
        for user in range(150):
            for item in dice.sample(ids[:200], 12):
                rows.writerow((f"u{user}", item, 1_700_000_000 + dice.randrange(1_000_000)))
    store = folder / "store"
    await run_command(
        environ,
        *("build", "--corpus", str(corpus), "--store", str(store), "--shards", str(SHARDS)),
        *("--interactions", str(folder / "interactions.csv"), "--index", "HNSW16,Flat"),
    )
    # A file where requests are to be recorded: each try fails.
    (store / "default" / "traffic").write_text("not a folder")
    return store


def item_ids(folder: Path) -> list[str]:
    """Returns the ids of the corpus."""
    lines = (folder / "corpus.jsonl").read_text("utf-8").splitlines()
    return [str(record.get("_id") or record["id"]) for record in map(json.loads, lines)]


class Deployment:
    """A running `nearline up --json`.

    address, http: Of the router, and the URL of the gateway. targets: The discovery file.
    processes: The newest line about each process that serves, by its name.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.processes: dict[str, dict[str, Any]] = {}
        self._ready = threading.Event()
        self.address = self.http = self.targets = ""
        threading.Thread(target=self._read, daemon=True).start()

    async def wait_ready(self) -> None:
        """Waits until everything serves. Raises: NotReady: it does not."""
        await asyncio.to_thread(self._ready.wait, _READY_S)
        if not self.address:
            raise NotReady("nearline up did not start; its own lines say why")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process by its name."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.processes[name]["pid"], number)

    def address_of(self, name: str) -> str:
        """Returns the address of a process, host:port."""
        return str(self.processes[name]["address"])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            record = json.loads(line)
            if record.get("pid"):
                known = self.processes.get(record["name"], {})
                self.processes[record["name"]] = known | record
            if record["event"] == "ready":
                self.address, self.http = str(record["address"]), str(record["http"])
                self.targets = str(record["metrics_targets"])
                self._ready.set()
        self._ready.set()


@contextlib.asynccontextmanager
async def deployment(
    store: Path, environ: Mapping[str, str], words: Sequence[str] = _EACH_ALONE
) -> AsyncIterator[Deployment]:
    """Runs `nearline up` for the duration of the block.

    words: Its further options; by default, every service has processes of its own.
    """
    process = subprocess.Popen(
        (*_COMMAND, "up", "--store", str(store), "--port", "0", "--json", *words),
        env=dict(environ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = Deployment(process)
        await found.wait_ready()
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def prometheus(program: str, folder: Path, store: Path) -> Iterator[str]:
    """Runs a Prometheus with the rules of deploy/ for the duration of the block.

    It reads the discovery files of the store, and scrapes and evaluates every second or two.
    Yields its address.
    """
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "2s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    files = [str(store / ".metrics" / "*.json")]
    scrape["file_sd_configs"] = [{"files": files, "refresh_interval": "1s"}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            (
                *(program, f"--config.file={folder / 'prometheus.yaml'}"),
                *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"),
            ),
            stdout=log,
            stderr=log,
        )
        try:
            yield address
        finally:
            process.terminate()
            process.wait(_STOP_S)
