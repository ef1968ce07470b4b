"""Tests of how `make audit` reports the findings of pip-audit."""

from __future__ import annotations

import json

from tests.project.audit_report import report

GOOD = {"name": "a", "version": "1.0", "vulns": []}
BAD = {
    "name": "b",
    "version": "2.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def test_a_vulnerability_is_named_with_its_remedy_and_is_a_failure() -> None:
    lines, code = report(json.dumps({"dependencies": [GOOD, BAD, UNKNOWN]}))
    assert code == 1
    assert lines == [
        "b 2.0: PYSEC-1, mended in 2.1, 3.0",
        "b 2.0: PYSEC-2, mended in no version yet",
        "2 of 3 packages audited, 2 vulnerabilities; the list does not know the other 1 here",
    ]


def test_without_a_vulnerability_or_without_a_network_it_is_none() -> None:
    assert report(json.dumps({"dependencies": [GOOD]})) == (
        ["1 of 1 packages audited, 0 vulnerabilities"],
        0,
    )
    assert report("") == (["not audited: the list of vulnerabilities cannot be reached"], 0)
