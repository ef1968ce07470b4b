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
    """Is connected to a Ray cluster for the block; nobody may have imported Ray before.

    Args:
        address: host:port, or "auto" for the cluster that this machine belongs to; empty: one is
            started on this machine, listens on its loopback address alone, and ends with the block.
    Raises: Unsupported: Ray is not installed, or the address is one of Ray Client. NotReady.
    """
    if address.startswith("ray://"):
        raise Unsupported(
            f"ray_address {address} is one of Ray Client, which Ray Data does not go through; run "
            "this on a machine of the cluster (ray job submit) with --ray-address auto"
        )
    _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It warns of the restarts that Ray Data itself asks for.
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
                "'nearline[ray]', or use --executor local"
            ) from error
        finally:
            # Importing Ray marks every record of every logger.
            logging.setLogRecordFactory(factory)
        # Ray takes over SIGTERM.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            # Workers import from where the driver stands: a folder `retrieval` there is not ours.
            with contextlib.chdir(folder):
                ray.init(**options, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _nobody(address or "hand", str(error).splitlines()[0]) from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            # Where a worker dies, Ray says so on standard output, which is for results.
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Looks whether anybody answers at host:port: Ray would look for two minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise _nobody(address, str(error)) from error


def _nobody(address: str, why: str) -> NotReady:
    return NotReady(
        f"there is no Ray cluster at {address}: {why}; start one (ray start --head), check "
        "--ray-address, or use --executor local"
    )


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """Makes a folder for the files of a cluster, removed when it ends."""
    usual = tempfile.gettempdir()
    # Its sockets lie 65 characters below, and a socket's path has at most 107.
    parent = usual if len(usual) <= 26 else "/tmp"
    return tempfile.TemporaryDirectory(prefix="nl-ray-", dir=parent, ignore_cleanup_errors=True)


def _prepare_own() -> None:
    """Sets what Ray reads of the environment as it starts a cluster of one machine."""
    # What Ray has for other systems: without it, it takes the address of a network card.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Whoever may connect may run anything, so not even others on this machine may.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
