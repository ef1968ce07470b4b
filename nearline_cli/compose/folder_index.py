"""The index of a folder: brought up to date before each question, and served by a keeper."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from nearline.errors import InvalidRequest, NearlineError, StoreError
from nearline_cli.compose.folder_files import FileState, IndexedFiles, list_states
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
    """

    def __init__(self, folder: Path, *, as_json: bool, summary: bool = True) -> None:
        self.folder = folder.expanduser().resolve()
        self._as_json = as_json
        self._summary = summary
        self._cache = _cache_of(self.folder)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[Keeper]:
        """Yields the keeper, once it serves the files as they are now; it lives on after the block.

        Raises:
            InvalidRequest: There is no folder, or no file of a known type in it.
            NotReady, SettingsError: The services did not start.
            StoreError: The cache cannot be written, or belongs to another user.
        """
        keepers.prepare_cache(self._cache)
        with keepers.used(self._cache):
            yield (await self._update())[0]

    async def watch(self, report: Callable[[FolderUpdate | NearlineError], None]) -> None:
        """Updates the index whenever a file changes, until cancelled.

        Args:
            report: Called with every update, and with the reason if one fails.
        """
        keepers.prepare_cache(self._cache)
        before: Mapping[str, FileState] | None = None
        tried: Mapping[str, FileState] | None = None
        with keepers.used(self._cache):
            while True:
                begun = time.monotonic()
                now = await self._states()
                pause_s = max(_WATCH_S, (time.monotonic() - begun) / _SHARE_OF_LOOKS)
                # A file that is being written is left to settle.
                if now != tried and (before is None or now == before):
                    tried = now
                    try:
                        update = (await self._update())[1]
                        if update is not None:
                            report(update)
                    except NearlineError as error:
                        report(error)
                    except OSError as error:
                        report(StoreError(f"{error.filename or self._cache}: {error.strerror}"))
                before = now
                await asyncio.sleep(pause_s)

    async def stop(self) -> bool:
        """Ends the keeper; returns whether there was one."""
        return await keepers.stop_keeper(self._cache)

    async def _update(self) -> tuple[Keeper, FolderUpdate | None]:
        """Starts the keeper and updates the index, as far as that is needed."""
        keeper, states = self._find_keeper(), await self._states()
        if keeper is not None and self._is_current(keeper, states):
            return keeper, None
        if not self.folder.is_dir():
            raise InvalidRequest(
                f"--folder {self.folder} is not a folder; name one with your files", field="folder"
            )
        # Imported late: a folder without changes needs nothing of this.
        from nearline_cli.compose.folder_build import FolderCorpus, serve_current
        from nearline_cli.local.supervisor import end_on_sigterm

        end_on_sigterm()
        FolderCorpus(self.folder)  # One without documents is refused before anything starts.
        async with self._locked():
            keeper = self._find_keeper()
            if keeper is None:
                # That of other settings, or of another version.
                await keepers.stop_keeper(self._cache)
                keeper = await keepers.start_keeper(self._cache, output.print_note)
            for attempt in range(1, _ATTEMPTS + 1):
                begun, states = time.monotonic(), await self._states()
                known = IndexedFiles.load(self._cache)
                if self._is_current(keeper, states):
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

    def _find_keeper(self) -> Keeper | None:
        keeper = keepers.find_keeper(self._cache)
        matches = keeper is not None and keeper.settings == keepers.settings_digest()
        return keeper if matches else None

    def _is_current(self, keeper: Keeper, states: Mapping[str, FileState]) -> bool:
        known = IndexedFiles.load(self._cache)
        return known.keeper == keeper.token and known.states == states

    async def _states(self) -> dict[str, FileState]:
        # Imported late, like the readers that these formats have.
        from index_builder.readers.formats import SUFFIXES

        return await asyncio.to_thread(list_states, self.folder, SUFFIXES)

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Lets one command at a time start a keeper and index the folder."""
        async with contextlib.AsyncExitStack() as stack:
            with waiting_note("another command that indexes the folder", quiet=self._as_json):
                await stack.enter_async_context(keepers.locked(self._cache / _LOCK))
            yield


def _cache_of(folder: Path) -> Path:
    import platformdirs

    given = os.environ.get("NEARLINE_CACHE_DIR", "") or platformdirs.user_cache_dir("nearline")
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(given).expanduser().absolute() / "folders" / digest
