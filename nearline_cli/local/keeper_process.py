"""The keeper of a folder: runs its services until nobody has asked for a while.

`python -m nearline_cli.local.keeper_process CACHE` reports the start as lines of text, "ready" at
its end; then it is silent, and writes to a log of limited size in the cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from nearline.access.rights import Right
from nearline.errors import NearlineError, SettingsError
from nearline.store.durable import write_durably
from nearline.store.snapshot import Store
from nearline_cli.local import keeper
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.process_plan import Layout, plan_processes
from nearline_cli.local.supervisor import (
    ProcessState,
    StateChange,
    end_on_sigterm,
    run_supervised,
)

IDLE_S = 600.0
_LOOK_S = 0.5
_LOG_BYTES = 1 << 20
_KEYS = "keeper.keys"
_log = logging.getLogger("keeper")


def main(cache: Path) -> int:
    """Runs the keeper, and returns its exit code."""
    # What it and its services write is for this user alone.
    os.umask(0o077)
    settings = keeper.settings_digest()
    # A disk that is full ends no service.
    logging.raiseExceptions = False
    log = RotatingFileHandler(cache / keeper.LOG, maxBytes=_LOG_BYTES, backupCount=1, delay=True)
    logging.basicConfig(handlers=[log], format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        asyncio.run(_keep(cache, settings))
    except asyncio.CancelledError:
        _log.info("ended by a signal")
    except NearlineError as error:
        _log.error("failed: %s", error.message)
        _say(f"{keeper.FAILED}{error.message}")
        return 2 if isinstance(error, SettingsError) else 1
    except Exception as error:
        _log.exception("failed")
        _say(f"{keeper.FAILED}{type(error).__name__}: {error}")
        return 1
    return 0


async def _keep(cache: Path, settings: str) -> None:
    end_on_sigterm()
    async with keeper.locked(cache / keeper.ALIVE):
        record = cache / keeper.RECORD
        record.unlink(missing_ok=True)
        (cache / _KEYS).unlink(missing_ok=True)
        # Every user of this machine can reach a port of it.
        token, _ = KeyStore(cache / _KEYS).create("*", {"*": Right.SERVICE})
        os.environ |= {"NEARLINE_KEYS": str(cache / _KEYS), "NEARLINE_TOKEN": token}
        # A question waits for the new snapshot.
        os.environ.setdefault("NEARLINE_RETRIEVAL_ALIAS_POLL_S", "0.2")
        store = Store.open(str(cache))
        layout = Layout(
            store=store, shards=1, port=0, embedding_port=0, generation_port=0, redis=""
        )
        with plan_processes(layout) as plan:
            # All at once: the others load while the model does.
            stage = (*plan.embedding, *plan.routers, *plan.generation)
            started = False

            def change(state: StateChange) -> None:
                _log.info("%s is %s %s", state.name, state.state.value, state.reason)
                if not started and state.state is ProcessState.STARTING:
                    _say(f"{state.name} is starting")

            def line(name: str, text: str) -> None:
                _log.info("%s: %s", name, text)

            async with run_supervised([stage], change, line):
                found = keeper.Keeper(
                    pid=os.getpid(),
                    embedding=plan.embedding[0].address,
                    retrieval=plan.address,
                    generation=plan.generation[0].address,
                    token=token,
                    settings=settings,
                )
                write_durably(record, json.dumps(found._asdict()).encode(), mode=0o600)
                started = True
                _say_ready()
                try:
                    await _until_idle(cache)
                finally:
                    record.unlink(missing_ok=True)


def _say(text: str) -> None:
    # Whoever started it may have been killed.
    with contextlib.suppress(OSError):
        print(text.replace("\n", " "), flush=True)


def _say_ready() -> None:
    _say(keeper.READY)
    # Whoever started it may end now.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


async def _until_idle(cache: Path) -> None:
    """Waits until nobody has used the services for a while, or the cache was removed."""
    idle_s = float(os.environ.get(keeper.IDLE_VARIABLE, IDLE_S))
    used, since = 0, time.monotonic()
    own = (cache / keeper.ALIVE).stat().st_ino
    while True:
        await asyncio.sleep(min(_LOOK_S, max(idle_s, 0.05)))
        try:
            now = (cache / keeper.USED).stat().st_mtime_ns
            if (cache / keeper.ALIVE).stat().st_ino != own:
                return
        except OSError:
            return
        if now != used:
            used, since = now, time.monotonic()
        elif time.monotonic() - since >= idle_s and keeper.is_unused(cache):
            _log.info("ended: nobody has asked for %g s", idle_s)
            return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
