"""Questions beyond speed: freshness, restarts, tenants and payload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from benchmarks.baselines.processes import single_process_pool
from benchmarks.peers.callers import CallerLoad, Target, open_client, run_round
from benchmarks.peers.dataset import NO_FILTER, PeerDataset
from benchmarks.peers.measurement import noted, run_in, started
from benchmarks.peers.system import Place, System
from benchmarks.workloads.closed_loop import TIE
from nearline_cli.terminal.output import print_json, print_note, print_table

_WIDTH = 128
_INSERTS = 20
_FOUND_WITHIN_S = 10.0
_STARTED_WITHIN_S = 120.0
_POLL_S = 0.01
_TENANT = "tenant"


class Answers(NamedTuple):
    """Figures of a system, at width 128.

    fresh_ms, fresh_max_ms: Median and maximum time from the call that inserts a vector until it is
    found, over 20 inserts. restart_s: From the start of the server to the first reply that is
    right. qps, tenant_qps: Without a filter, and for one of 1,000 tenants. payload_qps: With texts.
    """

    system: str
    fresh_ms: float
    fresh_max_ms: float
    restart_s: float
    qps: float
    recall: float
    tenant_qps: float
    tenant_recall: float
    payload_qps: float


async def ask_questions(
    systems: Sequence[System], dataset: PeerDataset, folder: Path, callers: int, seconds: float
) -> list[Answers]:
    """Starts one system after the other; one that fails is left out, with a note."""
    found = []
    for system in systems:
        place = Place(dataset.folder, folder / system.name, live=True)
        place.folder.mkdir()
        print_note(f"{system.name} ...")
        with noted(system.name):
            found.append(await _ask(system, place, dataset, callers, seconds))
    return found


def print_answers(answers: Sequence[Answers], *, as_json: bool) -> None:
    """Prints a table, or a JSON object per line."""
    if as_json:
        for one in answers:
            print_json({"kind": "answers"} | one._asdict())
    else:
        print_table(Answers._fields, answers)


async def _ask(
    system: System, place: Place, dataset: PeerDataset, callers: int, seconds: float
) -> Answers:
    with single_process_pool() as other:
        async with started(system, place, dataset) as one:
            await one.use_width(_WIDTH)
            fresh = [await one.run(insert_and_find, number) * 1e3 for number in range(_INSERTS)]
            plain, tenant, payload = [
                await one.run(
                    run_round, CallerLoad(_WIDTH, attribute, callers, seconds, payload=texts)
                )
                for attribute, texts in ((NO_FILTER, False), (_TENANT, False), (NO_FILTER, True))
            ]
            # Loads the packages of the client.
            await run_in(other, partial(first_reply, one.target))
        start = time.perf_counter()
        async with system.serve(place) as address:
            await run_in(other, partial(first_reply, one.target._replace(address=address)))
            restart_s = time.perf_counter() - start
    return Answers(
        system=system.name,
        fresh_ms=round(median(fresh), 1),
        fresh_max_ms=round(max(fresh), 1),
        restart_s=round(restart_s, 2),
        qps=round(plain.qps, 1),
        recall=round(plain.recall, 4),
        tenant_qps=round(tenant.qps, 1),
        tenant_recall=round(tenant.recall, 4),
        payload_qps=round(payload.qps, 1),
    )


# --- in the process of the callers -----------------------------------------------------------


def insert_and_find(target: Target, number: int) -> float:
    """Inserts a new vector; returns the seconds from the call until it is found.

    Raises TimeoutError: It was not found within ten seconds.
    """
    client, row = open_client(target), len(target.dataset.base) + number
    vectors = target.dataset.mirrored([row])
    start = time.perf_counter()
    client.upsert([row], vectors)
    while row not in client.search_written(vectors[0], _WIDTH):
        if time.perf_counter() - start > _FOUND_WITHIN_S:
            raise TimeoutError(f"a vector was not found {_FOUND_WITHIN_S:g} s after its insert")
    return time.perf_counter() - start


def first_reply(target: Target) -> None:
    """Connects and searches until the best hit is right.

    Raises TimeoutError: It was not within two minutes; its cause is the last error.
    """
    query = np.array(target.dataset.queries[0])
    edge = (target.dataset.base @ query).max() - TIE
    deadline = time.perf_counter() + _STARTED_WITHIN_S
    last: Exception | None = None
    while time.perf_counter() < deadline:
        # A server that starts refuses calls in many ways.
        try:
            with contextlib.closing(target.client(target.address, target.dataset)) as client:
                rows = client.search(query, _WIDTH, None, False)
                if rows and target.dataset.base[rows[0]] @ query >= edge:
                    return
        except Exception as error:
            last = error
        time.sleep(_POLL_S)
    raise TimeoutError(f"no right reply within {_STARTED_WITHIN_S:g} s") from last
