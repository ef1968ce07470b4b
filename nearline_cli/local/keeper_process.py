"""The keeper of a folder: runs its services until they have been idle for some minutes.

`python -m nearline_cli.local.keeper_process CACHE` prints why it failed, and otherwise nothing; it
writes a log of limited size to the cache.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from nearline.access.rights import Right
from nearline.errors import NearlineError, SettingsError
from nearline.store.snapshot import Store
from nearline_cli.local import keeper
from nearline_cli.local.key_store import KeyStore
from nearline_cli.local.process_plan import Layout, plan_processes
from nearline_cli.local.supervisor import StateChange, end_on_sigterm, run_supervised

_IDLE_VARIABLE, _IDLE_S = "NEARLINE_KEEPER_IDLE_S", "600"
_LOOK_S = 0.5
_LOG_BYTES = 1 << 20
_KEYS = "keeper.keys"
_log = logging.getLogger("keeper")


def main(cache: Path) -> int:
    """Runs the keeper, and returns its exit code."""
    # What it and its services write is for this user alone.
    os.umask(0o077)
    # A disk that is full ends no service.
    logging.raiseExceptions = False
    log = RotatingFileHandler(cache / keeper.LOG, maxBytes=_LOG_BYTES, backupCount=1, delay=True)
    logging.basicConfig(handlers=[log], format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        asyncio.run(_keep(cache))
    except asyncio.CancelledError:
        _log.info("ended by a signal")
    except NearlineError as error:
        _log.error("failed: %s", error.message)
        print(error.message)
        return 2 if isinstance(error, SettingsError) else 1
    except Exception as error:
        _log.exception("failed")
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


async def _keep(cache: Path) -> None:
    end_on_sigterm()
    # Before it changes what is a setting.
    settings, idle_s = keeper.settings_digest(), _idle_s()
    async with keeper.locked(cache / keeper.RECORD) as record:
        _write(record, keeper.Keeper(os.getpid()))
        (cache / _KEYS).unlink(missing_ok=True)
        # Every user of this machine can reach a port of it.
        token, _ = KeyStore(cache / _KEYS).create("*", {"*": Right.SERVICE})
        os.environ |= {"NEARLINE_KEYS": str(cache / _KEYS), "NEARLINE_TOKEN": token}
        # A question waits for the new snapshot.
        os.environ.setdefault("NEARLINE_RETRIEVAL_ALIAS_POLL_S", "0.2")
        layout = Layout(
            store=Store.open(str(cache)),
            shards=1,
            port=0,
            embedding_port=0,
            generation_port=0,
            redis="",
        )
        with plan_processes(layout) as plan:
            # All at once: the others load while the model does.
            stage = (*plan.embedding, *plan.routers, *plan.generation)
            async with run_supervised([stage], _log_change, _log_line):
                found = keeper.Keeper(
                    pid=os.getpid(),
                    settings=settings,
                    embedding=plan.embedding[0].address,
                    retrieval=plan.address,
                    generation=plan.generation[0].address,
                    token=token,
                )
                try:
                    _write(record, found)
                    await _until_idle(cache, record, idle_s)
                finally:
                    os.truncate(record, 0)


def _write(record: int, found: keeper.Keeper) -> None:
    # In place: the lock belongs to the file. A reader of a part of it looks again.
    os.truncate(record, 0)
    os.pwrite(record, json.dumps(found._asdict()).encode(), 0)


def _log_change(state: StateChange) -> None:
    _log.info("%s is %s %s", state.name, state.state.value, state.reason)


def _log_line(name: str, text: str) -> None:
    _log.info("%s: %s", name, text)


def _idle_s() -> float:
    text = os.environ.get(_IDLE_VARIABLE, "") or _IDLE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0.0:
        raise SettingsError(f"{_IDLE_VARIABLE} is {text!r}; set it to seconds, 0 or more")
    return seconds


async def _until_idle(cache: Path, record: int, idle_s: float) -> None:
    """Waits until the services have been idle for `idle_s`, or the cache was removed."""
    last, since = 0, time.monotonic()
    while True:
        await asyncio.sleep(min(_LOOK_S, max(idle_s, 0.05)))
        try:
            now = (cache / keeper.USED).stat().st_mtime_ns
            if not os.path.samestat((cache / keeper.RECORD).stat(), os.fstat(record)):
                return
        except OSError:
            return
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= idle_s and keeper.retire(cache):
            _log.info("ended: idle for %g s", idle_s)
            return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
