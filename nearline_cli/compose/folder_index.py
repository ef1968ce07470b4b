"""The index of a folder: brought up to date before each question, and served by a keeper."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from nearline.errors import InvalidRequest, NearlineError, NotReady, SettingsError, StoreError
from nearline_cli.compose.indexed_files import FileState, IndexedFiles, list_states
from nearline_cli.local import keeper as keepers
from nearline_cli.local.keeper import Keeper
from nearline_cli.terminal import output
from nearline_cli.terminal.progress import waiting_note

_LOCK = ".lock"
# A file may change while it is read.
_ATTEMPTS = 3
# Between two looks at a watched folder; more, if a look at a large one takes long.
_WATCH_S = 1.0
_SHARE_OF_LOOKS = 0.1
# A file that is being written is left to settle, but one that always changes holds up no other.
_SETTLE_S = 10.0
_RETRY_S = 60.0


class FolderUpdate(NamedTuple):
    """An update of an index. changes: How many files differ, in words."""

    changes: str
    documents: int
    files: int
    seconds: float


class FolderIndex:
    """The index of a folder, and the keeper that serves it.

    Args:
        folder: The folder.
        as_json: Whether to show no progress.
        summary: Whether to print what a build has built.
    Raises:
        InvalidRequest: The path leads nowhere. SettingsError: There is no place for the cache.
    """

    def __init__(self, folder: Path, *, as_json: bool, summary: bool = True) -> None:
        try:
            self.folder = folder.expanduser().resolve()
            os.fspath(self.folder).encode()
        except RuntimeError as error:
            # The home of an unknown user, or a loop of links.
            raise _no_folder(folder, f" ({error})") from error
        except UnicodeEncodeError as error:
            name = os.fsencode(folder).decode("utf-8", "backslashreplace")
            raise InvalidRequest(
                f"the name of --folder {name} is not UTF-8; rename it", field="folder"
            ) from error
        self._as_json = as_json
        self._summary = summary
        self._cache = _cache_of(self.folder)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[Keeper]:
        """Yields the keeper, once it serves the files as they are now; it lives on after the block.

        Raises:
            InvalidRequest: There is no folder, or no file of a known type in it.
            NotReady, SettingsError: The services did not start, or ended.
            StoreError: The cache cannot be written, or belongs to another user.
        """
        self._prepare()
        with keepers.used(self._cache):
            keeper, _ = await self._update()
            try:
                yield keeper
            except NotReady as error:
                raise keepers.ended(self._cache) from error

    async def watch(self, report: Callable[[FolderUpdate | NearlineError], None]) -> None:
        """Updates the index whenever a file changes, until cancelled.

        Args:
            report: Called with every update, and with the reason if one fails.
        """
        self._prepare()
        last = built = None
        in_step, retry = time.monotonic(), float("inf")
        with keepers.used(self._cache):
            while True:
                begun = time.monotonic()
                now = await self._states()
                pause_s = max(_WATCH_S, (time.monotonic() - begun) / _SHARE_OF_LOOKS)
                if now == built:
                    in_step = begun
                settled = last in (None, now) or begun - in_step >= _SETTLE_S
                if (now != built and settled) or begun >= retry:
                    built, in_step, retry = now, begun, float("inf")
                    try:
                        self._prepare()
                        if (update := (await self._update())[1]) is not None:
                            report(update)
                    except (NearlineError, OSError) as error:
                        retry = time.monotonic() + _RETRY_S
                        if isinstance(error, OSError):
                            place = error.filename or self._cache
                            error = StoreError(f"{place}: {error.strerror}")
                        report(error)
                last = now
                await asyncio.sleep(pause_s)

    async def stop(self) -> bool:
        """Ends the keeper; returns whether there was one."""
        return await keepers.stop_keeper(self._cache)

    def _prepare(self) -> None:
        if not self.folder.is_dir():
            raise _no_folder(self.folder)
        keepers.prepare_cache(self._cache)

    async def _update(self) -> tuple[Keeper, FolderUpdate | None]:
        """Starts the keeper and updates the index, as far as that is needed."""
        keeper, states = keepers.find_keeper(self._cache), await self._states()
        if keeper is not None and keeper.settings == keepers.settings_digest():
            if IndexedFiles.load(self._cache).is_of(keeper, states):
                return keeper, None
        # Imported late: a folder without changes needs nothing of this.
        from nearline_cli.compose.folder_build import FolderCorpus, serve_current
        from nearline_cli.local.supervisor import end_on_sigterm

        end_on_sigterm()
        async with contextlib.AsyncExitStack() as stack:
            waited_for = "the services of the folder, or another command that indexes it"
            with waiting_note(waited_for, quiet=self._as_json):
                await stack.enter_async_context(keepers.locked(self._cache / _LOCK))
                keeper = await keepers.settled_keeper(self._cache)
            if keeper is None:
                FolderCorpus(self.folder)  # One without documents is refused before this starts.
                keeper = await keepers.start_keeper(self._cache, output.print_note)
            for attempt in range(1, _ATTEMPTS + 1):
                begun, states = time.monotonic(), await self._states()
                known = IndexedFiles.load(self._cache)
                if known.is_of(keeper, states):
                    return keeper, None
                try:
                    indexed, result = await serve_current(
                        *(self.folder, self._cache, keeper, states, known),
                        as_json=self._as_json,
                        summary=self._summary,
                    )
                except (InvalidRequest, FileNotFoundError):
                    if attempt == _ATTEMPTS or await self._states() == states:
                        raise
                    continue
                indexed.save(self._cache)
                if result is None:
                    return keeper, None
                changes, seconds = known.describe_changes(indexed), time.monotonic() - begun
                files = len(indexed.hashes)
                return keeper, FolderUpdate(changes, result.documents, files, seconds)
        raise AssertionError  # The last attempt returns or raises.

    async def _states(self) -> dict[str, FileState]:
        # Imported late, like the readers that these formats have.
        from index_builder.readers.formats import SUFFIXES

        return await asyncio.to_thread(list_states, self.folder, SUFFIXES)


def _cache_of(folder: Path) -> Path:
    import platformdirs

    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    try:
        given = os.environ.get("NEARLINE_CACHE_DIR", "") or platformdirs.user_cache_dir("nearline")
        return Path(given).expanduser().absolute() / "folders" / digest
    except RuntimeError as error:
        raise SettingsError(
            f"no place for the index: {error}; set NEARLINE_CACHE_DIR to a folder of your own"
        ) from error


def _no_folder(folder: Path, why: str = "") -> InvalidRequest:
    return InvalidRequest(
        f"--folder {folder} is not a folder{why}; name one with your files", field="folder"
    )
