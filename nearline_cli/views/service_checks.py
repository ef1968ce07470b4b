"""Checks of the services that run on this machine, for `nearline doctor`."""

from __future__ import annotations

from nearline.errors import NearlineError
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
        elif name == "ingest" and service.state == SERVING:
            found.append(_check_queue(name, service.address))
        else:
            found.append(ok(name, f"{service.address}: {service.state}"))
    return found


def _check_queue(name: str, address: str) -> CheckResult:
    try:
        queue = ask_ingest(address, lambda client: client.queue())
    except NearlineError as error:
        problem, _, remedy = error.message.partition("; ")
        return fail(name, f"{address}: {problem}", remedy)
    found, problems = f"{address}: {describe_queue(queue)}", queue_problems(queue)
    return warn(name, found, "; ".join(problems)) if problems else ok(name, found)
