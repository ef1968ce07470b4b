"""The folder that a build works in: one build at a time, kept after a kill, removed at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from index_builder.documents.records import SourceCount
from index_builder.options.build_options import BuildOptions
from nearline.errors import Conflict
from nearline.snapshot import Store
from nearline.store.lock import lock_folder

FOLDER = ".build"


def work_key(
    options: BuildOptions,
    sources: Sequence[SourceCount],
    reading: Sequence[str],
    fingerprint: str,
) -> str:
    """Returns a name for the work of a build: equal inputs, options and embedder give equal names.

    Args:
        options: What the build makes; only what decides chunks and vectors matters, so that a
            build that failed over its index goes on with another one.
        sources: Inputs with their SHA-256.
        reading: How they are read (column names and the like).
        fingerprint: Of the embedder; empty for vectors that the user brought.
    """
    cutting = asdict(options.chunks)
    taking = [options.shards, options.max_bad_rows, options.title_only, options.index.metric]
    inputs = [(source.uri, source.sha256) for source in sources]
    placing = [options.as_of.isoformat()] if options.as_of else []
    text = json.dumps([cutting, taking, inputs, list(reading), fingerprint, *placing])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def work_folder(options: BuildOptions, key: str) -> Path:
    """Returns the folder of a build: in `work_dir` where the user chose one, else in the store."""
    parent = (
        options.work_dir or Store.open(options.store).files.folder / options.collection / FOLDER
    )
    return parent.absolute() / key


@contextlib.contextmanager
def locked(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Makes the folder and holds its lock for the length of the block.

    Args:
        folder: The folder; removed when the block ends well or with a Conflict, and however it ends
            unless `keep`.
        keep: Whether a later run may go on with what is in it.
    Raises: Conflict: another build works in it. StoreError: it cannot be made.
    """
    busy = (
        f"another build of the same input works in {folder}; wait until it ends, or choose another "
        "--work-dir"
    )
    with lock_folder(folder, busy):
        try:
            yield folder
        except BaseException as error:
            # What conflicts with what others did meanwhile begins again.
            if not keep or isinstance(error, Conflict):
                _remove(folder)
            raise
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == FOLDER:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # Only where no other build has its folder there.
