"""The work folder of a build: locked, kept after a kill, removed at the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from index_builder.documents.records import SourceCount
from index_builder.options.build_options import BuildOptions
from nearline.errors import Conflict, InvalidRequest, NearlineError
from nearline.store.lock import lock_folder
from nearline.store.snapshot import Store
from retrieval.snapshots.retention import WORK_GRACE

FOLDER = ".build"


class NoDocuments(InvalidRequest):
    """A build has nothing to build from."""


# The work of these began too early for a later run: with outdated data, or with none at all.
OUTDATED = (Conflict, NoDocuments)
_KEY = re.compile(r"[0-9a-f]{16}")


def work_key(
    options: BuildOptions,
    sources: Sequence[SourceCount],
    reading: Sequence[str],
    fingerprint: str,
) -> str:
    """Returns a key of the work: equal for builds with the same inputs, options and embedder.

    Args:
        options: Options of the build. Only those that affect chunks and vectors count, so a build
            that failed on its index can be resumed with a different index.
        sources: Sources with their SHA-256.
        reading: Settings of the reader, such as column names.
        fingerprint: Fingerprint of the embedder; empty if the user brings the vectors.
    """
    chunks = asdict(options.chunks)
    intake = [options.shards, options.max_bad_rows, options.title_only, options.index.metric]
    inputs = [(source.uri, source.sha256) for source in sources]
    as_of = [options.as_of.isoformat()] if options.as_of else []
    text = json.dumps([chunks, intake, inputs, list(reading), fingerprint, *as_of])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def work_folder(options: BuildOptions, key: str) -> Path:
    """Returns the folder of a build: in `work_dir` if it is set, otherwise in the store."""
    parent = (
        options.work_dir or Store.open(options.store).files.folder / options.collection / FOLDER
    )
    return parent.absolute() / key


@contextlib.contextmanager
def locked(folder: Path, *, keep: bool) -> Iterator[Path]:
    """Creates the folder and holds its lock during the block.

    Args:
        folder: The folder. It is removed after success and after errors of OUTDATED, and after any
            other error unless `keep` is set.
        keep: Whether a later run may resume the work.
    Raises: Conflict: another build works in it. StoreError: it cannot be created.
    """
    busy = (
        f"another build of the same input works in {folder}; wait until it ends, or use another "
        "--work-dir"
    )
    with lock_folder(folder, busy):
        try:
            yield folder
        except BaseException as error:
            if not keep or isinstance(error, OUTDATED):
                _remove(folder)
            raise
        _remove(folder)


def remove_stale_work(options: BuildOptions) -> None:
    """Removes the folders of builds that ended a week ago or earlier and were never resumed."""
    before_s = time.time() - WORK_GRACE.total_seconds()
    for folder in work_folder(options, "").glob("*"):
        with contextlib.suppress(NearlineError, OSError):
            files = [folder, *folder.iterdir()]
            # A build may run for longer without a write.
            if max(one.stat().st_mtime for one in files) < before_s and _KEY.fullmatch(folder.name):
                with lock_folder(folder, "in use"):
                    _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == FOLDER:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # Fails, as intended, while another build has its folder there.
