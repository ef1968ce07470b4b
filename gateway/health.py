"""Says whether a gateway answers: `python -m gateway.health HOST:PORT`."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import sys
from collections.abc import Sequence
from typing import Final

from nearline import health

_TIMEOUT_S: Final = 5.0


def check(address: str) -> str:
    """Returns why a gateway at host:port does not answer; an empty string if it does."""
    return find(address)[1]


def find(address: str) -> tuple[str, str]:
    """Returns the URL of a gateway at host:port, and why it does not answer, if it does not.

    To a gateway with a certificate it speaks TLS, whatever name and authority that has: probes know
    it by its address alone, and nothing secret is sent. It shows the certificate in
    NEARLINE_TLS_CERT, if there is one.
    """
    scheme = "http"
    try:
        try:
            status = _status(http.client.HTTPConnection(address, timeout=_TIMEOUT_S))
        except (ConnectionResetError, http.client.HTTPException):
            # To a server of TLS, plain HTTP is a broken greeting.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            # Imported late: most probes need nothing of it, and they run often.
            from nearline.tls import TlsFiles

            own = TlsFiles.of_client(os.environ)
            if own.certificate and own.key:
                context.load_cert_chain(own.certificate, own.key)
            secure = http.client.HTTPSConnection(address, timeout=_TIMEOUT_S, context=context)
            status = _status(secure)
            scheme = "https"
    except (OSError, http.client.HTTPException) as error:
        why = f"{address}: {error or type(error).__name__}"
    else:
        why = "" if status == 200 else f"{address} answers with status {status}; see its log"
    return f"{scheme}://{address}", why


def _status(connection: http.client.HTTPConnection) -> int:
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        return connection.getresponse().status


def main(argv: Sequence[str]) -> int:
    """Returns the exit code, as `nearline.health` does."""
    return health.main(argv, check, "gateway.health")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
