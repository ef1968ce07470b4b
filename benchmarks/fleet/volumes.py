"""Folders of a fleet: of volumes, logs and roots."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.fleet.container_process import Folders


def fleet_folders(folder: Path) -> Folders:
    """Creates the folders of a fleet in an empty folder."""
    folders = Folders(folder / "roots", folder / "logs", folder / "hosts")
    for one in (folder / "volumes", folders.roots, folders.logs):
        one.mkdir(parents=True)
    # Containers run as another user; pytest's folders are private.
    for one in (folder, folder / "volumes", folders.roots):
        one.chmod(0o755)
    folders.hosts.touch()
    return folders


def owned_folder(folder: Path, user: str) -> Path:
    """Returns the folder of a volume; a new one belongs to the user "UID:GID" that has it first."""
    if not folder.exists():
        folder.mkdir()
        if user and os.getuid() == 0:
            owner, _, group = user.partition(":")
            os.chown(folder, int(owner), int(group or owner))
    return folder
