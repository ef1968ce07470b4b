"""`nearline doctor` lists every service, with the remedy for one that has a problem."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from nearline import contract as c, health
from nearline.errors import NotReady
from nearline.v1 import admin_pb2
from nearline_cli.local import machine_checks
from nearline_cli.local.machine_checks import CLOCKS_DIFFER, SERVING, service_states
from nearline_cli.views import service_checks
from nearline_cli.views.checks import CheckStatus
from nearline_cli.views.queue_view import describe_queue, queue_problems
from nearline_cli.views.service_checks import check_services

HOST = "127.0.0.1"


def checks(
    monkeypatch: pytest.MonkeyPatch,
    queue: Callable[[], c.QueueState],
    why: str = "",
    full: str = "",
) -> dict[str, tuple[CheckStatus, str, str]]:
    """Returns what is found if router and queue run, by service."""
    monkeypatch.setattr(machine_checks, "answers", lambda host, port: port in (7700, 7705))
    monkeypatch.setattr(health, "check", lambda address: why)
    monkeypatch.setattr(service_checks, "ask_ingest", lambda address, read: queue())
    serving = admin_pb2.GetServingStatusResponse()
    if full:
        serving.resources.add(name="disk", problem=full)
    monkeypatch.setattr(service_checks, "ask_router", lambda address: serving)
    return {one.check: (one.verdict, one.found, one.remedy) for one in check_services(HOST, 7700)}


def test_services_that_serve_or_do_not_run_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks(monkeypatch, c.QueueState) == {
        "retrieval": (CheckStatus.OK, f"{HOST}:7700: serving", ""),
        "embedding": (CheckStatus.OK, f"{HOST}:7701: not running", ""),
        "generation": (CheckStatus.OK, f"{HOST}:7703: not running", ""),
        "ingest": (CheckStatus.OK, f"{HOST}:7705: 0 to do; 0 workers at 0.0 documents/s", ""),
        "gateway": (CheckStatus.OK, f"{HOST}:7706: not running", ""),
    }
    assert service_states(HOST, 0) == {}


def test_a_service_that_does_not_serve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks(monkeypatch, c.QueueState, why=f"{HOST}:7700 is NOT_SERVING")["retrieval"]
    assert found == (
        CheckStatus.FAIL,
        f"{HOST}:7700 is NOT_SERVING",
        "see its log, and nearline status",
    )


def test_a_router_that_refuses_upserts_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = "the disk of /store has 1.0 MiB free (--feed-block-disk 0.9): enlarge it"
    assert checks(monkeypatch, c.QueueState, full=full)["retrieval"] == (
        CheckStatus.FAIL,
        f"{HOST}:7700: upserts are refused, deletes are not: {full.removesuffix(': enlarge it')}",
        "enlarge it",
    )


def test_a_queue_without_redis_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def queue() -> c.QueueState:
        raise NotReady("Redis does not answer; check --redis")

    verdict, found, remedy = checks(monkeypatch, queue)["ingest"]
    assert (verdict, remedy) == (CheckStatus.FAIL, "check --redis")
    assert found == f"{HOST}:7705: Redis does not answer"


def test_dead_letters_and_missing_workers_are_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = c.QueueState(waiting=2, delayed=1, dead=1, oldest_age_s=90.0)
    assert describe_queue(state) == (
        "3 to do, the oldest for 2 min; 0 workers at 0.0 documents/s; no worker runs: start "
        "nearline up, or python -m index_builder.ingest.worker; 1 dead letter: nearline "
        "letters list"
    )
    verdict, _, remedy = checks(monkeypatch, lambda: state)["ingest"]
    assert (verdict, remedy) == (CheckStatus.WARN, "; ".join(queue_problems(state)))
    worker = c.IngestWorker(
        worker_id="w", in_hand=0, documents_per_s=1.0, start_time=datetime.now(UTC)
    )
    assert queue_problems(c.QueueState(waiting=2, workers=[worker])) == []


@pytest.mark.parametrize(
    ("ahead_s", "state", "side"),
    [
        (61.0, CLOCKS_DIFFER, "its clock is 61 s ahead of that of this machine; "),
        (-600.0, CLOCKS_DIFFER, "its clock is 600 s behind that of this machine; "),
        (-59.0, SERVING, "Redis"),
        (59.0, SERVING, "Redis"),
    ],
)
def test_a_clock_more_than_a_minute_off_is_named(ahead_s: float, state: str, side: str) -> None:
    found, about = machine_checks._judge({}, ahead_s)
    assert (found, about.startswith(side)) == (state, True)
