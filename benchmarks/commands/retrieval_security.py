"""`nearline bench retrieval --secured`: what TLS, keys and limits cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from statistics import median
from unittest import mock

from benchmarks.baselines.processes import RunningRouter, router_process, single_process_pool
from benchmarks.workloads.closed_loop import SearchRound, SearchTask, round_figures, run_round
from benchmarks.workloads.retrieval_dataset import RetrievalDataset
from nearline.access.caller import EVERY
from nearline.access.rights import Right
from nearline.channel_security import ChannelSecurity
from nearline.tls import TlsFiles
from nearline_cli.local.certificates import CertificateAuthority
from nearline_cli.local.key_store import KeyStore

_WARM_UP_S = 1.0
# High enough to refuse nothing: what counting costs is measured.
_LIMITS = "[default]\nrequests_per_s = 1_000_000\nconcurrent = 1_000\nk = 10_000\nbatch = 1_024\n"


async def measure_secured(
    prepared: RetrievalDataset, *, separate: bool, seconds: float, rounds: int
) -> dict[str, object]:
    """Measures two routers in turn, one with TLS, an API key and limits, and one without."""
    task = prepared.sides[0].task
    loop = asyncio.get_running_loop()
    found: list[list[SearchRound]] = [[], []]
    with single_process_pool() as caller:
        async with (
            router_process(("--store", str(task.store)), int(separate)) as plain,
            _secured(task, separate=separate) as (router, security),
        ):
            sides = ((plain.address, ChannelSecurity()), (router.address, security))
            for number in range(rounds + 1):
                length = seconds if number else _WARM_UP_S
                # The order alternates, so that a drift of the machine affects both alike.
                for side in (0, 1) if number % 2 else (1, 0):
                    address, shown = sides[side]
                    one = await loop.run_in_executor(
                        caller, run_round, task, address, length, 0.0, 0.0, shown
                    )
                    if number:
                        found[side].append(one)
    ratios = sorted(mine.qps / other.qps for other, mine in zip(*found, strict=True))
    return {
        **round_figures(found[0], task.k),
        **round_figures(found[1], task.k, "secured_"),
        "ratio_to_plain": round(median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


@contextlib.asynccontextmanager
async def _secured(
    task: SearchTask, *, separate: bool
) -> AsyncIterator[tuple[RunningRouter, ChannelSecurity]]:
    """Runs a router with TLS, a key and limits; yields it, and what its callers show."""
    folder = task.folder / "secured"
    authority = CertificateAuthority(folder)
    certificate, key = authority.issue("nearline", ("127.0.0.1",))
    keys = folder / "keys.toml"
    token, _ = KeyStore(keys).create("shop", {EVERY: Right.READ})
    service, _ = KeyStore(keys).create(EVERY, {EVERY: Right.SERVICE})
    limits = folder / "limits.toml"
    limits.write_text(_LIMITS)
    tls = TlsFiles(authorities=str(authority.file))
    environ = {
        "NEARLINE_TLS_CERT": str(certificate),
        "NEARLINE_TLS_KEY": str(key),
        "NEARLINE_TLS_CA": str(authority.file),
        "NEARLINE_KEYS": str(keys),
        "NEARLINE_LIMITS": str(limits),
        "NEARLINE_TOKEN": service,
    }
    with mock.patch.dict(os.environ, environ):
        async with router_process(("--store", str(task.store)), int(separate)) as router:
            yield router, ChannelSecurity(token, tls)
