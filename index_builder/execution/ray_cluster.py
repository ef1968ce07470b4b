"""The connection of this process to a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from nearline.errors import NotReady, Unsupported

_CONNECT_S = 5.0


@contextlib.contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connects this process to a Ray cluster for the block; Ray must not be imported before.

    Args:
        address: host:port, or "auto" for the cluster of this machine. If empty, a cluster is
            started on this machine; it listens on the loopback address and ends with the block.
    Raises: Unsupported: Ray is not installed, or the address is that of a Ray Client. NotReady.
    """
    if address.startswith("ray://"):
        raise Unsupported(
            f"ray_address {address} belongs to Ray Client, which Ray Data does not support; run "
            "this on a machine of the cluster (ray job submit) with --ray-address auto"
        )
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns about restarts that Ray Data requests.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    options: dict[str, Any] = {"address": address or "local"}
    with _short_folder() as folder:
        if not address:
            _prepare_own()
            options |= {"include_dashboard": False, "_temp_dir": folder}
        factory = logging.getLogRecordFactory()
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise Unsupported(
                f"executor ray needs Ray, which is not installed ({error.name}); run pip install "
                "'nearline-server[ray]', or use --executor local"
            ) from error
        finally:
            # Importing Ray marks all records of all loggers.
            logging.setLogRecordFactory(factory)
        # Ray takes over SIGTERM.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            # Workers import from the driver's directory, which might contain a folder `retrieval`.
            with contextlib.chdir(folder):
                ray.init(**options, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _not_ready(address or "hand", str(error).splitlines()[0]) from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            # Ray reports the death of a worker on standard output, which is reserved for results.
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises NotReady if host:port does not accept connections; Ray would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise _not_ready(address, str(error)) from error


def _not_ready(address: str, reason: str) -> NotReady:
    return NotReady(
        f"there is no Ray cluster at {address}: {reason}; start one (ray start --head), check "
        "--ray-address, or use --executor local"
    )


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """Creates a folder for the files of a cluster; removed when it ends."""
    usual = tempfile.gettempdir()
    # Ray's sockets lie 65 characters below; the path of a socket has at most 107.
    parent = usual if len(usual) <= 26 else "/tmp"
    return tempfile.TemporaryDirectory(prefix="nl-ray-", dir=parent, ignore_cleanup_errors=True)


def _prepare_own() -> None:
    """Sets the environment variables of a cluster on one machine."""
    # Intended for Windows and macOS; without this variable, Ray uses the address of a network card.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Clients may run any code, so other users of this machine must not connect either.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
