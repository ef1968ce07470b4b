"""Builds and tests images: `python -m deploy.images [TARGET...]`, for `make image`."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nearline
from deploy.images.base_image import pip_mounts, prepare_base
from deploy.images.engine import Build, Engine, EngineError
from deploy.images.engine_choice import choose_engine
from deploy.images.report import ImageReport, measure, write_report
from deploy.images.sbom import write_sbom
from deploy.images.smoke import make_volumes, smoke
from deploy.images.targets import CPU_TARGETS, choose_targets, image_name
from deploy.images.upgrade import TARGETS as UPGRADED, upgrade
from nearline.errors import NearlineError

ROOT = Path(__file__).parents[2]
_LABEL = "org.opencontainers.image."


def main() -> int:
    """Returns the exit code: 1 if an image is not built or fails its test, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(CPU_TARGETS))
    parser.add_argument("--out", type=Path, default=ROOT / ".cache" / "images")
    parser.add_argument(
        "--upgrade-from", metavar="COMMIT", default="", help="start over volumes of its images"
    )
    parser.add_argument("--cyclonedx", type=Path, default=Path("cyclonedx-py"))
    chosen = parser.parse_args()
    try:
        targets = choose_targets(chosen.targets)
    except ValueError as error:
        parser.error(str(error))
    if chosen.upgrade_from and not set(UPGRADED) <= set(targets):
        parser.error(f"--upgrade-from needs the targets {' '.join(UPGRADED)}")
    # Both are needed only after minutes.
    if chosen.upgrade_from and not _git(
        "rev-parse", "--verify", f"{chosen.upgrade_from}^{{commit}}"
    ):
        parser.error(f"--upgrade-from: git has no commit {chosen.upgrade_from}")
    if shutil.which(chosen.cyclonedx) is None:
        parser.error(f"there is no program {chosen.cyclonedx}; run make image, which installs it")
    chosen.out.mkdir(parents=True, exist_ok=True)
    for log in chosen.out.glob("*.log"):
        log.unlink()
    engine: Engine | None = None
    try:
        engine = choose_engine()
        _make(engine, targets, chosen.out, chosen.cyclonedx, chosen.upgrade_from)
    except (EngineError, NearlineError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if engine is not None:
            engine.close()
    return 0


def _make(
    engine: Engine, targets: list[str], out: Path, cyclonedx: Path, upgrade_from: str
) -> None:
    base = prepare_base(engine, ROOT / "Dockerfile")
    print(f"{engine.name} builds from {base}, {engine.digest(base)}", flush=True)
    revision, epoch = _revision()
    labels = {_LABEL + "version": nearline.__version__, _LABEL + "revision": revision}
    reports: list[ImageReport] = []
    with tempfile.TemporaryDirectory(prefix="nearline-images-") as folder:
        mounts = pip_mounts(Path(folder))
        for target in targets:
            image = image_name(target)
            started = time.monotonic()
            build = Build(target, image, base, epoch, labels, mounts)
            engine.build(ROOT, build)
            seconds = time.monotonic() - started
            size_mb, largest = measure(engine, image)
            sbom = out / f"{target}.cdx.json"
            packages = write_sbom(engine, image, cyclonedx, sbom)
            print(f"{target}: {size_mb} MB in {seconds:.0f} s; {', '.join(largest)}", flush=True)
            report = ImageReport(
                target=target,
                image=image,
                digest=engine.digest(image),
                size_mb=size_mb,
                largest=largest,
                seconds=round(seconds, 1),
                sbom=str(sbom),
                packages=packages,
            )
            reports.append(report)
        started = time.monotonic()
        images = {one.target: one.image for one in reports}
        volumes = make_volumes(Path(folder) / "volumes")
        for target, seen in smoke(engine, images, volumes, out).items():
            (report,) = (one for one in reports if one.target == target)
            report.seen = seen
        if upgrade_from:
            found = upgrade(engine, ROOT, upgrade_from, build, Path(folder), out)
            print(f"over volumes of {upgrade_from} were found: {found}")
    print(f"tested in {time.monotonic() - started:.0f} s")
    print(write_report(reports, base, out / "report.json"))


def _revision() -> tuple[str, int]:
    """Returns the commit and its time; "-modified" says that the checkout differs from it."""
    modified = "-modified" if _git("status", "--porcelain") else ""
    return _git("rev-parse", "HEAD") + modified, int(_git("log", "-1", "--format=%ct") or 0)


def _git(*words: str) -> str:
    """Returns the output of git; empty if it fails."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
