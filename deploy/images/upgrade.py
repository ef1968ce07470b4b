"""New images over the volumes of older ones, which are built from a commit for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.images.engine import Build, Engine, EngineError
from deploy.images.smoke import check_kept, make_volumes, smoke
from deploy.images.targets import image_name

# Images that have volumes, or fill those of others.
TARGETS = ("embedding", "retrieval", "index_builder")
_TAG = "previous"


def upgrade(
    engine: Engine, root: Path, revision: str, newest: Build, folder: Path, logs: Path
) -> str:
    """Fills volumes with images of an older commit, and starts the new ones over them.

    Args:
        engine: What builds images and runs containers.
        root: This checkout.
        revision: The older commit.
        newest: A build of now, for its base and mounts.
        folder: Where to work.
        logs: Folder of the logs.
    Returns: What the new images found.
    Raises: EngineError: an image was not built, or did not find something.
    """
    context = folder / "previous"
    _export(root, revision, context)
    older = {target: image_name(target, _TAG) for target in TARGETS}
    volumes = make_volumes(folder / "older-volumes")
    try:
        for target, image in older.items():
            engine.build(context, newest._replace(target=target, image=image, labels={}))
        smoke(engine, older, volumes, _new_folder(logs / "older"), own_model=False)
    finally:
        engine.close()
        for image in older.values():
            engine.remove(image)
    _spoil_models(volumes)
    newer = {target: image_name(target) for target in TARGETS}
    return check_kept(engine, newer, volumes, _new_folder(logs / "upgraded"))


def _new_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _export(root: Path, revision: str, context: Path) -> None:
    context.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=root, capture_output=True)
    if archive.returncode:
        raise EngineError(f"git has no commit {revision}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(context)], input=archive.stdout, check=True)


def _spoil_models(volumes: Mapping[str, Path]) -> None:
    """Damages a model in the volume, if there is one: an image that read it would fail.

    Images before November 2026 kept theirs there; newer ones keep it in the image.
    """
    files = [*volumes["/cache"].rglob("model.bin"), *volumes["/cache"].rglob("golden-*.npy")]
    for file in files:
        file.write_bytes(b"the model of an older image")
