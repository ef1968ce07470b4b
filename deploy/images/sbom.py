"""The bill of materials of an image, in CycloneDX: its Python and Debian packages."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path
from typing import Any

from deploy.images.engine import Engine, run

# Prints the metadata of every Python package as an archive.
_METADATA = """
cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
exec tar --create ./*.dist-info
"""
# cyclonedx-py asks an interpreter where packages are; that of the image does not run here.
_INTERPRETER = "#!{python}\nimport json\nprint(json.dumps([{folder!r}]))\n"
_DEBIAN = "${Package} ${Version} ${Architecture}\\n"


def write_sbom(engine: Engine, image: str, program: Path, file: Path) -> int:
    """Writes the bill of materials of an image; returns the number of its packages.

    Args:
        engine: What has the image.
        image: Its name.
        program: cyclonedx-py.
        file: Where to write it.
    Raises: EngineError: the image's packages cannot be listed.
    """
    listed = engine.command_line(image, ["sh", "-c", _METADATA], {})
    metadata = run(listed, f"packages of {image}")
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder) / "packages"
        with tarfile.open(fileobj=io.BytesIO(metadata)) as archive:
            archive.extractall(packages, filter="data")
        interpreter = Path(folder) / "python"
        interpreter.write_text(
            _INTERPRETER.format(python=sys.executable, folder=str(packages)), "utf-8"
        )
        interpreter.chmod(0o755)
        command = [str(program), "environment", "--output-format", "JSON", "--output-reproducible"]
        bill = json.loads(run([*command, str(interpreter)], f"bill of {image}"))
    query = engine.command_line(image, ["dpkg-query", "--show", "-f", _DEBIAN], {})
    for line in run(query, f"Debian's packages of {image}").decode().splitlines():
        bill["components"].append(_debian_package(*line.split()))
    bill["metadata"]["component"] = {"type": "container", "name": image, "bom-ref": image}
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, engine.digest(image))}"
    file.write_text(json.dumps(bill, indent=1) + "\n", "utf-8")
    return len(bill["components"])


def _debian_package(name: str, version: str, architecture: str) -> dict[str, Any]:
    purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": purl,
        "bom-ref": purl,
    }
