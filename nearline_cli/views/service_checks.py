"""Checks of the services that run on this machine, for `nearline doctor`."""

from __future__ import annotations

import asyncio

from nearline.clients import AdminClient
from nearline.errors import NearlineError
from nearline.v1 import admin_pb2
from nearline_cli.local.machine_checks import FAILING, SERVING, service_states
from nearline_cli.views.checks import CheckResult, fail, ok, warn
from nearline_cli.views.job_view import ask_ingest
from nearline_cli.views.queue_view import describe_queue, queue_problems


def check_services(host: str, port: int) -> list[CheckResult]:
    """Checks each service that `nearline up` starts; one that does not run is no problem.

    Args:
        host: Address that the services listen on.
        port: Port of the router; the others follow it. 0 checks none.
    """
    found: list[CheckResult] = []
    for name, service in service_states(host, port).items():
        if service.state == FAILING:
            found.append(fail(name, service.about, "see its log, and nearline status"))
        elif name == "retrieval" and service.state == SERVING:
            found.append(_check_router(name, service.address))
        elif name == "ingest" and service.state == SERVING:
            found.append(_check_queue(name, service.address))
        else:
            found.append(ok(name, f"{service.address}: {service.state}"))
    return found


def feed_problem(reply: admin_pb2.GetServingStatusResponse) -> str:
    """Returns why a router refuses upserts, and the remedies; empty if it accepts them."""
    problems = [one.problem for one in reply.resources if one.problem]
    return f"upserts are refused, deletes are not: {'. '.join(problems)}" if problems else ""


def ask_router(address: str) -> admin_pb2.GetServingStatusResponse:
    """Asks a router what it serves."""

    async def ask() -> admin_pb2.GetServingStatusResponse:
        async with AdminClient(address) as client:
            return await client.serving_status()

    return asyncio.run(ask())


def _check_router(name: str, address: str) -> CheckResult:
    found = f"{address}: {SERVING}"
    try:
        problem, _, remedy = feed_problem(ask_router(address)).rpartition(": ")
    except NearlineError as error:
        return warn(name, f"{found}, but it does not say what", error.message)
    return fail(name, f"{address}: {problem}", remedy) if problem else ok(name, found)


def _check_queue(name: str, address: str) -> CheckResult:
    try:
        queue = ask_ingest(address, lambda client: client.queue())
    except NearlineError as error:
        problem, _, remedy = error.message.partition("; ")
        return fail(name, f"{address}: {problem}", remedy)
    found, problems = f"{address}: {describe_queue(queue)}", queue_problems(queue)
    return warn(name, found, "; ".join(problems)) if problems else ok(name, found)
