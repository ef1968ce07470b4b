"""Alerts fire and stay silent as their tests say, name what exists, and have a runbook."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus_tools import PROMETHEUS, ROOT, check_names, grouped_by, promtool

RULES: list[dict[str, Any]] = [
    rule
    for file in ("rules.yaml", "alerts.yaml")
    for group in yaml.safe_load((PROMETHEUS / file).read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
ALERTS = {str(rule["alert"]): rule for rule in RULES if "alert" in rule}
RECORDS: dict[str, frozenset[str]] = {}
for rule in RULES:
    if "record" in rule:
        # A rule keeps the labels of the recorded series that it reads.
        read = [labels for name, labels in RECORDS.items() if name in rule["expr"]]
        RECORDS[str(rule["record"])] = frozenset(grouped_by(rule["expr"])).union(*read)
TESTS = sorted((PROMETHEUS / "tests").glob("*.yaml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
_FIRING = re.compile(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}')


def test_rules_are_valid() -> None:
    promtool("check", "rules", "rules.yaml", "alerts.yaml")


@pytest.mark.parametrize("name", ["prometheus.yaml", "prometheus.compose.yaml"])
def test_configurations_are_valid(name: str) -> None:
    promtool("check", "config", name)


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_alerts_fire_and_stay_silent_as_written(path: object) -> None:
    promtool("test", "rules", str(path))


def expectations() -> dict[str, list[tuple[bool, bool]]]:
    """Returns, by alert, for each test whether it fires at some time, and whether it is silent."""
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for path in TESTS:
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            shown: dict[str, list[bool]] = defaultdict(list)
            for check in test["promql_expr_test"]:
                match = _FIRING.fullmatch(check["expr"])
                assert match, f"{path.name}: {check['expr']} does not ask for a firing alert"
                shown[match[1]].append(bool(check["exp_samples"]))
            for name, fires in shown.items():
                found[name].append((any(fires), not all(fires)))
    return found


def test_each_alert_fires_in_a_test_and_is_silent_throughout_another() -> None:
    found = expectations()
    assert found.keys() == ALERTS.keys()
    for name, tests in found.items():
        # Where it fires, it is silent at first: it does not fire too early.
        assert (True, True) in tests, f"no test shows when {name} begins to fire"
        assert (False, True) in tests, f"no test shows a near miss of {name}"


def test_names_are_unique() -> None:
    names = [rule.get("alert") or rule["record"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"Nearline[A-Za-z]+", name) for name in ALERTS)


@pytest.mark.parametrize("rule", RULES, ids=[r.get("alert") or r["record"] for r in RULES])
def test_an_expression_names_series_and_labels_that_exist(rule: dict[str, Any]) -> None:
    if rule["expr"] != "vector(0.04)":
        check_names(rule["expr"], RECORDS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    summary, remedy = rule["annotations"]["summary"], rule["annotations"]["remedy"]
    for text in (summary, remedy):
        assert text[0].isupper() or text.startswith(("nearline", "{{"))
        assert text.endswith(".")
    path, _, heading = rule["annotations"]["runbook_url"].partition("#")
    assert heading == name.lower()
    page = ROOT / path
    assert page.parent == RUNBOOKS
    assert re.search(rf"^## {name}$", page.read_text("utf-8"), re.M), f"{path} has no ## {name}"


def test_the_index_of_runbooks_lists_each_alert_with_its_severity() -> None:
    text = (RUNBOOKS / "README.md").read_text("utf-8")
    for name, rule in ALERTS.items():
        page = rule["annotations"]["runbook_url"].rpartition("/")[2]
        assert f"| [{name}]({page}) | {rule['labels']['severity']} |" in text
    for page in RUNBOOKS.glob("*.md"):
        headings = re.findall(r"^## (Nearline\w+)$", page.read_text("utf-8"), re.M)
        assert set(headings) <= ALERTS.keys()


def test_commands_of_runbooks_exist() -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text("utf-8")
    options = set(re.findall(r"`(--[a-z-]+)`", reference))
    known = set(re.findall(r"^## `(nearline[^`]*)`$", reference, re.M))
    for page in RUNBOOKS.glob("*.md"):
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.S)
        commands = [line for block in blocks for line in block.splitlines()]
        commands += re.findall(r"`(nearline [^`]+)`", page.read_text("utf-8"))
        for line in commands:
            words = line.split()
            if words[0] != "nearline":
                continue
            assert {" ".join(words[:2]), " ".join(words[:3])} & known, f"{page.name}: {line}"
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options, f"{page.name}: {line}"
