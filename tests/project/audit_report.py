"""Says what `pip-audit` found: `python -m tests.project.audit_report FILE.json`, for `make audit`.

Exit code 1: a version that is installed has a known vulnerability. Where the list of
vulnerabilities cannot be reached, it says so, and ends with 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def report(found: str) -> tuple[list[str], int]:
    """Returns lines to print, and the exit code.

    Args:
        found: The JSON that pip-audit wrote; empty if it wrote none.
    """
    try:
        packages = json.loads(found)["dependencies"]
    except ValueError:
        return ["not audited: the list of vulnerabilities cannot be reached"], 0
    asked = [one for one in packages if "skip_reason" not in one]
    lines = [
        f"{one['name']} {one['version']}: {known['id']}, mended in "
        f"{', '.join(known['fix_versions']) or 'no version yet'}"
        for one in asked
        for known in one["vulns"]
    ]
    unknown = len(packages) - len(asked)
    counted = f"{len(asked)} of {len(packages)} packages audited, {len(lines)} vulnerabilities"
    if unknown:
        counted += f"; the list does not know the other {unknown} here"
    return [*lines, counted], int(bool(lines))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    told, code = report(path.read_text("utf-8") if path.exists() else "")
    print("\n".join(told))
    sys.exit(code)
