"""The files of a folder as they are now, and as they were when its index was built."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

from nearline_cli.local.keeper import Keeper

# Size, and the times of the last change of the contents and of the entry: a copy keeps the former.
FileState: TypeAlias = tuple[int, int, int]
_UNREADABLE = (-1, 0, 0)
_FILES = "files.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFiles:
    """The files that an index was built from.

    keeper: Token of the keeper that serves it. states: By path. hashes: SHA-256 by path. left_out:
    Reports of what could not be read.
    """

    keeper: str = ""
    states: Mapping[str, FileState] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    @classmethod
    def load(cls, cache: Path) -> IndexedFiles:
        """Returns those of the last build; none if there was none, or its file is damaged."""
        try:
            known = json.loads((cache / _FILES).read_text("utf-8"))
            known["states"] = {path: tuple(state) for path, state in known["states"].items()}
            return cls(**known)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def save(self, cache: Path) -> None:
        """Writes them; a failure costs the next question a look at every file."""
        # Imported late: most questions find everything unchanged.
        from nearline.store.durable import write_durably

        with contextlib.suppress(OSError):
            write_durably(cache / _FILES, json.dumps(asdict(self)).encode(), mode=0o600)

    def is_of(self, keeper: Keeper, states: Mapping[str, FileState]) -> bool:
        """Returns whether a keeper serves these, and no file has changed since."""
        return self.keeper == keeper.token and self.states == states

    def known_hashes(self, now: Mapping[str, FileState]) -> dict[str, str]:
        """Returns the hashes of the files that have not changed since."""
        return {
            path: sha256
            for path, sha256 in self.hashes.items()
            if sha256 and path in now and self.states.get(path) == now[path]
        }

    def describe_changes(self, now: IndexedFiles) -> str:
        """Returns how many files differ, such as "1 new, 2 changed"."""
        both = self.hashes.keys() & now.hashes.keys()
        counts = {
            "new": len(now.hashes.keys() - both),
            "changed": sum(self.hashes[path] != now.hashes[path] for path in both),
            "gone": len(self.hashes.keys() - both),
        }
        return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing changed"


def list_states(folder: Path, suffixes: Iterable[str]) -> dict[str, FileState]:
    """Returns the states of the files that a build looks at, and of every link, by path."""
    endings = tuple(suffixes)
    found: dict[str, FileState] = {}
    pending = [str(folder)]
    while pending:
        parent = pending.pop()
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_symlink() or entry.name.lower().endswith(endings):
                        found[entry.path] = _state(entry)
        except OSError:
            found[parent] = _UNREADABLE
    return found


def _state(entry: os.DirEntry[str]) -> FileState:
    try:
        status = entry.stat()
    except OSError:
        # A link to nowhere, or a file that was just deleted.
        return _UNREADABLE
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
