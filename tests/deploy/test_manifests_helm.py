"""The Helm chart installs what the production overlay does, and its values have effects."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import Manifest, load_all, render
from tests.deploy.tools import ROOT, require_tool

FOLDER = ROOT / "deploy" / "helm"
CHART = FOLDER / "nearline"
VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
Objects = dict[tuple[str, str], Manifest]


def _template(values: Manifest | None = None) -> Objects:
    """Returns the objects that the chart installs with these values, by kind and name."""
    return _objects(load_all(_template_text(json.dumps(values or {}))))


@functools.cache
def _template_text(values: str) -> str:
    done = subprocess.run(
        [require_tool("helm"), "template", "x", str(CHART), "--namespace=nearline", "--values=-"],
        input=values,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _objects(documents: Sequence[Manifest]) -> Objects:
    """Returns objects by kind and name, without hashes and the order of variables."""
    text = re.sub(r"\bstore-[a-z0-9]{10}\b", "store", json.dumps(documents))
    found = {}
    for one in json.loads(text):
        for container in _containers(one):
            container["env"].sort(key=lambda variable: variable["name"])
        found[one["kind"], one["metadata"]["name"]] = one
    return found


def _containers(one: Manifest) -> list[Manifest]:
    spec = one.get("spec", {})
    if one["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    containers: list[Manifest] = spec.get("template", {}).get("spec", {}).get("containers", [])
    return containers


@pytest.mark.parametrize("overlay", ["production", "tracing"])
def test_the_chart_installs_what_the_overlay_does(overlay: str) -> None:
    wanted = _objects([one for one in render(overlay) if one["kind"] != "Namespace"])
    made = _template({"tracing": {"enabled": overlay == "tracing"}})
    assert set(made) == set(wanted)
    for name, one in wanted.items():
        assert made[name] == one, name


def test_the_chart_is_what_its_generator_makes_now(tmp_path: Path) -> None:
    path = os.pathsep.join((str(Path(require_tool("kustomize")).parent), os.environ["PATH"]))
    subprocess.run(
        [sys.executable, FOLDER / "generate.py", tmp_path],
        check=True,
        env=os.environ | {"PATH": path},
        timeout=60,
    )
    made = {one.relative_to(tmp_path): one.read_text() for one in tmp_path.rglob("*.yaml")}
    there = {one.relative_to(CHART): one.read_text() for one in CHART.rglob("*.yaml")}
    assert made == there, "run python deploy/helm/generate.py"


def test_the_chart_passes_the_check_of_helm() -> None:
    subprocess.run([require_tool("helm"), "lint", "--strict", CHART], check=True, timeout=60)


def _leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path


def _values_in_which_one_counts(path: tuple[str, ...]) -> Manifest:
    """Returns the values, with those that switch the value at a path on."""
    values = copy.deepcopy(VALUES)
    if path[-1] == "replicas":
        # It counts only if nothing scales it.
        values["autoscaling"]["enabled"] = False
    if path[0] == "tracing" and path[-1] != "enabled":
        values["tracing"]["enabled"] = True
    return values


@pytest.mark.parametrize("path", list(_leaves(VALUES)), ids=".".join)
def test_every_value_has_an_effect(path: tuple[str, ...]) -> None:
    values = _values_in_which_one_counts(path)
    before = _template_text(json.dumps(values))
    place = values
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    place[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else "9"
    assert _template_text(json.dumps(values)) != before


def test_the_store_is_named_in_its_config_map() -> None:
    assert _template({"store": "9"})["ConfigMap", "store"]["data"] == {"url": "9"}


def test_objects_of_the_operator_get_the_labels_that_it_selects_by() -> None:
    labels = {"release": "kube-prometheus-stack"}
    made = _template({"monitoring": {"labels": labels}})
    found = [one for (kind, _), one in made.items() if kind in ("PodMonitor", "PrometheusRule")]
    assert [one["metadata"]["labels"] for one in found] == [labels] * 3


def test_traces_go_to_the_collector_of_the_values() -> None:
    values = {"endpoint": "https://tempo.traces:4317", "sample": 0.5, "namespace": "traces"}
    made = _template({"tracing": {"enabled": True, **values}})
    env = _containers(made["StatefulSet", "shards-b"])[0]["env"]
    found = {one["name"]: one.get("value") for one in env}
    assert found["NEARLINE_TRACE_ENDPOINT"] == values["endpoint"]
    assert found["NEARLINE_TRACE_SAMPLE"] == "0.5"
    (rule,) = made["NetworkPolicy", "tracing"]["spec"]["egress"]
    assert rule["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traces"}}}
    ]


def test_the_number_of_shards_is_one_value() -> None:
    made = _template({"shards": {"count": 3}})
    for group in ("shards-a", "shards-b"):
        assert made["StatefulSet", group]["spec"]["replicas"] == 3
    topology, builds = (
        {one["name"]: one.get("value") for one in _containers(made[name])[0]["env"]}
        for name in (("Deployment", "router"), ("CronJob", "build"))
    )
    assert topology["NEARLINE_RETRIEVAL_SHARDS"] == (
        "0=shards-a-0.shards-a:7702,shards-b-0.shards-b:7702;"
        "1=shards-a-1.shards-a:7702,shards-b-1.shards-b:7702;"
        "2=shards-a-2.shards-a:7702,shards-b-2.shards-b:7702"
    )
    assert builds["NEARLINE_INDEX_BUILDER_SHARDS"] == "3"
    names = made["Certificate", "nearline"]["spec"]["dnsNames"]
    assert {"shards-a-2.shards-a", "shards-b-2.shards-b"} <= set(names)


def test_images_come_from_the_registry_with_the_tag() -> None:
    made = _template({"image": {"registry": "registry.example/team", "tag": "1.2.3"}})
    images = {one["image"] for each in made.values() for one in _containers(each)}
    assert "registry.example/team/nearline-retrieval:1.2.3" in images
    assert all(
        re.fullmatch(r"registry\.example/team/nearline-[a-z-]+:1\.2\.3", one) for one in images
    )


def test_a_setting_is_added_and_another_is_changed() -> None:
    settings = {"NEARLINE_RETRIEVAL_SEARCH_CACHE": "10000", "NEARLINE_RETRIEVAL_DRAIN_S": 7}
    made = _template({"router": {"env": settings}})
    found = [
        (one["name"], one.get("value"))
        for one in _containers(made["Deployment", "router"])[0]["env"]
    ]
    assert ("NEARLINE_RETRIEVAL_SEARCH_CACHE", "10000") in found
    assert [value for name, value in found if name == "NEARLINE_RETRIEVAL_DRAIN_S"] == ["7"]


def test_what_a_cluster_lacks_is_left_out() -> None:
    off = {
        key: {"enabled": False} for key in ("ingress", "monitoring", "autoscaling", "certificate")
    }
    made = _template(off)
    assert {kind for kind, _ in made} == {
        *("ConfigMap", "ServiceAccount", "Service", "Deployment", "StatefulSet", "CronJob"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    }
    # No dashboards.
    assert [name for kind, name in made if kind == "ConfigMap"] == ["store"]
    # Nothing scales them now.
    assert all(one["spec"]["replicas"] for (kind, _), one in made.items() if kind == "Deployment")
