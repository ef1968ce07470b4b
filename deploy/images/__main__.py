"""Builds and tests images: `python -m deploy.images [TARGET...]`, for `make image`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nearline
from deploy.images.base_image import pip_mounts, prepare_base
from deploy.images.engine import Build, Engine, EngineError, NoEngineError, choose_engine, run
from deploy.images.sbom import write_sbom
from deploy.images.smoke import smoke
from deploy.images.targets import CPU_TARGETS, choose_targets, image_name
from nearline.errors import NearlineError

ROOT = Path(__file__).parents[2]
OUT = ROOT / ".cache" / "images"
_SIZE = ["sh", "-c", "du -sm --one-file-system / 2>/dev/null | cut -f1"]
_LABEL = "org.opencontainers.image."


def main() -> int:
    """Returns the exit code: 1 if an image is not built or fails its test, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(CPU_TARGETS))
    parser.add_argument("--cyclonedx", type=Path, default=Path("cyclonedx-py"))
    parser.add_argument(
        "--optional", action="store_true", help="succeed where this machine builds no images"
    )
    chosen = parser.parse_args()
    try:
        targets = choose_targets(chosen.targets)
    except ValueError as error:
        parser.error(str(error))
    # It is needed only after minutes.
    if shutil.which(chosen.cyclonedx) is None:
        parser.error(f"there is no program {chosen.cyclonedx}; run make image, which installs it")
    engine: Engine | None = None
    try:
        engine = choose_engine()
        _make(engine, targets, chosen.cyclonedx)
    except NoEngineError as error:
        print(f"skipped images: {error}" if chosen.optional else error, file=sys.stderr)
        return 0 if chosen.optional else 1
    except (EngineError, NearlineError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if engine is not None:
            engine.close()
    return 0


def _make(engine: Engine, targets: list[str], cyclonedx: Path) -> None:
    base = prepare_base(engine, ROOT / "Dockerfile")
    OUT.mkdir(parents=True, exist_ok=True)
    for log in OUT.glob("*.log"):
        log.unlink()
    print(f"{engine.name} builds from {base}, {engine.digest(base)}", flush=True)
    # "-modified" says that the checkout differs from the commit.
    revision = _git("rev-parse", "HEAD") + ("-modified" if _git("status", "--porcelain") else "")
    epoch = int(_git("log", "-1", "--format=%ct") or 0)
    labels = {_LABEL + "version": nearline.__version__, _LABEL + "revision": revision}
    reports = []
    with tempfile.TemporaryDirectory(prefix="nearline-images-") as folder:
        # Containers are other users.
        Path(folder).chmod(0o755)
        mounts = pip_mounts(Path(folder))
        for target in targets:
            image, sbom = image_name(target), OUT / f"{target}.cdx.json"
            started = time.monotonic()
            engine.build(ROOT, Build(target, image, base, epoch, labels, mounts))
            seconds = round(time.monotonic() - started, 1)
            size_mb = int(run(engine.command_line(image, _SIZE, {}), f"size of {image}"))
            packages = write_sbom(engine, image, cyclonedx, sbom)
            print(f"{target}: {size_mb} MB in {seconds:.0f} s, {packages} packages", flush=True)
            report = {"target": target, "image": image, "digest": engine.digest(image)}
            reports.append({**report, "size_mb": size_mb, "seconds": seconds, "packages": packages})
        images = {target: image_name(target) for target in targets}
        for target, seen in smoke(engine, images, Path(folder) / "data", OUT).items():
            print(f"{target}: {seen}")
    text = json.dumps({"base": base, "images": reports}, indent=1)
    (OUT / "report.json").write_text(text + "\n", "utf-8")


def _git(*words: str) -> str:
    """Returns the output of git; empty if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
