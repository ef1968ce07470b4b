"""Says whether a gateway answers: `python -m gateway.health HOST:PORT`."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence
from typing import Final

from nearline import health

_TIMEOUT_S: Final = 5.0


def check(address: str) -> str:
    """Returns why a gateway at host:port does not answer; an empty string if it does."""
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{address}: {error or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == 200 else f"{address} answers with status {status}; see its log"


def main(argv: Sequence[str]) -> int:
    """Returns the exit code, as `nearline.health` does."""
    return health.main(argv, check, "gateway.health")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
