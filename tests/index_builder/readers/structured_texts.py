"""What is wrong with a text that should be structured text."""

from __future__ import annotations

import re

_FENCE = re.compile(r"`{3,}")
_MARKER = re.compile(r"(?:-|\d+\.|#{1,6})")
_HEADING = re.compile(r"#{1,6} \S")


def faults_of(text: str) -> list[str]:
    """Returns the faults of a text: open code, empty lines in a row, markers without text, and
    headings with other lines in their block."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        sign = line.strip(" ")
        if fence:
            fence = "" if sign == fence else fence
        elif _FENCE.fullmatch(sign):
            fence = sign
            lines.append("code")
        else:
            lines.append(line)
    blocks = "\n".join(lines).split("\n\n")
    faults = ["open code"] if fence else []
    faults += ["empty lines"] if text and any(not block.strip("\n") for block in blocks) else []
    faults += [f"only a marker: {line}" for line in lines if _MARKER.fullmatch(line.strip(" "))]
    return faults + [
        f"a heading among lines: {block}"
        for block in blocks
        if "\n" in block and any(map(_HEADING.match, block.split("\n")))
    ]
