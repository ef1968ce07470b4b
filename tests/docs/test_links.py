"""Links of the documentation lead somewhere, and its lines are short enough to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.test_house_rules import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchor(heading: str) -> str:
    """Returns the anchor that GitHub gives to a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M)
            assert anchor in {_anchor(heading) for heading in headings}, f"{target} has no heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_wraps_at_100_characters(page: Path) -> None:
    # Code, tables and a long address cannot be wrapped; generated pages are not written by hand.
    if page.parent.name == "reference" and page.name != "errors.md":
        pytest.skip("generated")
    prose = re.sub(r"^( *)```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    long = [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")]
    assert [line for line in long if " " in line.strip()[:100]] == []
