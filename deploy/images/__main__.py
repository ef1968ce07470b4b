"""Builds and tests images: `python -m deploy.images [TARGET...]`, for `make image`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nearline
from deploy.images.base_image import pip_mounts, prepare_base
from deploy.images.engine import Build, Container, Engine, EngineError, run
from deploy.images.engines import choose_engine
from deploy.images.sbom import write_sbom
from deploy.images.smoke import make_volumes, smoke
from deploy.images.targets import CPU_TARGETS, choose_targets, image_name
from deploy.images.upgrade import TARGETS as UPGRADED, upgrade
from nearline.errors import NearlineError

_LARGEST = 5
# Sizes in MB of the whole file system, and of each folder of packages.
_SIZES = """
du -sm --one-file-system / 2>/dev/null | cut -f1
cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
du -sm -- */ /opt/*/*/ 2>/dev/null | sort -rn || true
"""


@dataclasses.dataclass(slots=True, kw_only=True)
class ImageReport:
    """One image.

    target, image: Target and name. digest: Digest of its configuration. size_mb: Its file system.
    largest: Largest parts, such as "numpy 31". seconds: Of its build. sbom: File of its bill of
    materials. packages: Number of packages there. seen: What the test saw of it.
    """

    target: str
    image: str
    digest: str
    size_mb: int
    largest: list[str]
    seconds: float
    sbom: str = ""
    packages: int = 0
    seen: str = ""


def measure(engine: Engine, image: str) -> tuple[int, list[str]]:
    """Returns the size of an image in MB, and its largest parts with theirs.

    Raises: EngineError: a container of it does not run.
    """
    command = engine.command_line(Container(image, ["sh", "-c", _SIZES]))
    total, *parts = run(command, f"size of {image}").decode().splitlines()
    named = (part.split("\t") for part in parts[:_LARGEST])
    return int(total), [f"{name.strip('/').rpartition('/')[2]} {size}" for size, name in named]


def write_report(reports: Sequence[ImageReport], base: str, file: Path) -> str:
    """Writes a report as JSON; returns it as a table."""
    records = [dataclasses.asdict(report) for report in reports]
    file.write_text(json.dumps({"base": base, "images": records}, indent=1) + "\n", "utf-8")
    rows = [("target", "MB", "s", "packages", "digest", "tested")]
    for one in reports:
        digest = one.digest.removeprefix("sha256:")[:12]
        figures = (str(one.size_mb), f"{one.seconds:.0f}", str(one.packages))
        rows.append((one.target, *figures, digest, one.seen))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


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
