"""The report of `make image` on each image: on the terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from deploy.images.engine import Container, Engine, run

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
