"""Lists the files of a folder: those that are read, those that are refused, and all others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nearline.counts import counted

_ENDINGS_SHOWN = 10
_NAMES_SHOWN = 3
_REFUSED_SHOWN = 5
_LINK_REMEDY = "put the file itself there, or remove the link"


class FolderFile(NamedTuple):
    """A file. relative: Its path below the folder, with slashes."""

    path: Path
    relative: str


class RefusedFile(NamedTuple):
    """A file, link or folder that is not read, and why, with the remedy."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class FolderContents:
    """The contents of a folder and of the folders in it, each list ordered by path.

    files: Files to read. refused: Entries that may not or cannot be read. skipped: Paths, below the
    folder, of files of other formats.
    """

    files: list[FolderFile] = field(default_factory=list)
    refused: list[RefusedFile] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def list_folder(folder: Path, suffixes: Collection[str]) -> FolderContents:
    """Lists a folder.

    Hidden files and folders are left out. A link to a file in the folder is a file like any other;
    one to a folder in it is left out, since that is listed where it is. Links that lead out of the
    folder are refused, as nobody may know what they bring in.

    Args:
        folder: The folder; may itself be a link.
        suffixes: Suffixes of the files to read, in lower case.
    """
    contents = FolderContents()
    root = folder.resolve()
    for path in sorted(_entries(folder, contents.refused)):
        relative = path.relative_to(folder).as_posix()
        known = path.suffix.lower() in suffixes
        if path.is_symlink() and (known or not path.is_file()):
            reason = _problem_of_link(path, root)
            if reason and (known or not path.suffix or path.is_dir()):
                contents.refused.append(RefusedFile(path, reason))
                continue
        if path.is_file():
            if known:
                contents.files.append(FolderFile(path, relative))
            else:
                contents.skipped.append(relative)
    return contents


def by_ending(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns names of files by their ending in lower case, the most frequent first.

    An ending has its dot, such as .png; that of a name without one is empty.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[Path(name).suffix.lower()].append(name)
    return {one: found[one] for one in sorted(found, key=lambda one: (-len(found[one]), one))}


def describe_skipped(skipped: Sequence[str]) -> str:
    """Returns how many files of which endings were skipped, with some of their names."""
    parts = []
    for ending, names in by_ending(skipped).items():
        shown = [*names[:_NAMES_SHOWN], *(["…"] if len(names) > _NAMES_SHOWN else [])]
        parts.append(f"{len(names):,} {ending or 'without an ending'} ({', '.join(shown)})")
    more = len(parts) - _ENDINGS_SHOWN
    others = [f"{counted(more, 'other ending')}"] if more > 0 else []
    described = ", ".join([*parts[:_ENDINGS_SHOWN], *others])
    return f"{counted(len(skipped), 'file')} of other formats: {described}"


def describe_unread(contents: FolderContents) -> str:
    """Returns what is in a folder without readable files, to be added to an error."""
    lines = [f"\n  it has {describe_skipped(contents.skipped)}"] if contents.skipped else []
    lines += [f"\n  {path}: {reason}" for path, reason in contents.refused[:_REFUSED_SHOWN]]
    more = len(contents.refused) - _REFUSED_SHOWN
    return "".join(lines) + (f"\n  and {more:,} more" if more > 0 else "")


def _entries(folder: Path, refused: list[RefusedFile]) -> Iterator[Path]:
    """Yields every file and every link that is not hidden; adds folders that cannot be read."""

    def cannot_list(error: OSError) -> None:
        reason = f"the folder cannot be read: {error.strerror}; let this user read it"
        refused.append(RefusedFile(Path(error.filename), reason))

    for parent, folders, files in os.walk(folder, onerror=cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
        # A link to a folder is not followed.
        yield from filter(Path.is_symlink, (Path(parent, name) for name in folders))


def _problem_of_link(path: Path, root: Path) -> str:
    """Returns why a link is refused; empty if it leads to something in the folder."""
    try:
        target = path.resolve(strict=True)
    except RuntimeError:
        # Python before 3.13 names a loop of links this way.
        return f"a link that leads back to itself; {_LINK_REMEDY}"
    except OSError as error:
        missing = f"a link to {os.readlink(path)}, which cannot be read: {error.strerror}"
        return f"{missing}; {_LINK_REMEDY}"
    if not target.is_relative_to(root):
        return f"a link that leads out of the folder, to {target}; {_LINK_REMEDY}"
    return ""
