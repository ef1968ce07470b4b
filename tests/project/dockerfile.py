"""Reads stages of the Dockerfile."""

from __future__ import annotations

import re


def stage_text(dockerfile: str, name: str) -> str:
    """Returns the text of a stage, after that of the stages it starts from.

    Raises: AssertionError: there is no stage of this name.
    """
    stages = {
        stage: (parent, text)
        for parent, stage, text in re.findall(
            r"^FROM (\S+) AS (\S+)$(.*?)(?=^FROM |\Z)", dockerfile, re.M | re.S
        )
    }
    assert name in stages, f"the Dockerfile has no stage {name}"
    parent, text = stages[name]
    return (stage_text(dockerfile, parent) if parent in stages else "") + str(text)
