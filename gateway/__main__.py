"""The gateway: `python -m gateway --retrieval HOST:PORT`."""

from __future__ import annotations

import nearline.early_stop  # noqa: F401

# isort: split
import logging
import sys
from collections.abc import Sequence

from gateway import http_server
from gateway.application import make_application
from gateway.settings import GatewaySettings
from gateway.upstream import Upstream
from nearline import serving, settings, telemetry
from nearline.loop_watchdog import LoopWatchdog
from nearline.tracing.spans import traced_calls

# Under the name that supervisors read.
_log = logging.getLogger("nearline.serving")


async def main(argv: Sequence[str]) -> None:
    """Serves until SIGTERM, SIGINT, or the death of the supervisor."""
    chosen = settings.load_from_process(GatewaySettings, argv)
    telemetry.configure_logging(chosen.log_level, "gateway")
    stop = serving.stop_event()
    serving.start_metrics(chosen)
    application = make_application(chosen, Upstream.of(chosen))
    async with (
        traced_calls(chosen.trace_endpoint, chosen.trace_sample, chosen.section),
        http_server.serving(application, chosen) as address,
        LoopWatchdog(),
    ):
        _log.info("serving", extra={"address": address})
        await stop.wait()
        _log.info("draining", extra={"address": address})
    _log.info("stopped", extra={"address": address})


if __name__ == "__main__":
    serving.run(main(sys.argv[1:]), "gateway")
