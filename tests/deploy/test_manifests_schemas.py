"""Objects of every overlay are valid by the schemas of their kinds."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema
import pytest
import yaml

from index_builder.pipeline.settings import IndexBuilderSettings
from nearline.settings import parse_arguments
from tests.deploy.manifests import DOCKERFILE, OVERLAYS, Manifest, of_kind, render
from tests.deploy.tools import ROOT

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed: make deploy-tools"
)
# The oldest that has what the manifests use, and the newest whose schemas are here.
VERSIONS = ("1.30", "1.37")
CUSTOM: dict[str, Any] = yaml.safe_load(
    (ROOT / "tests/deploy/custom_resources.yaml").read_text("utf-8")
)
overlays = pytest.mark.parametrize("overlay", OVERLAYS)


def _custom_kind(one: Manifest) -> str:
    return f"{one['apiVersion']}/{one['kind']}"


def _check_kubernetes(one: Manifest, version: str) -> None:
    _check_text(json.dumps(one), version)


@functools.cache
def _check_text(text: str, version: str) -> None:
    # Once, since most objects are the same in all overlays.
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def _check_oldest(one: Manifest) -> None:
    _check_kubernetes(one, VERSIONS[0])


def _check_custom(one: Manifest) -> None:
    assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
    schema = CUSTOM[_custom_kind(one)] | {"$defs": CUSTOM["$defs"]}
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
        one["spec"]
    )


@overlays
@pytest.mark.parametrize("version", VERSIONS)
def test_objects_of_kubernetes_are_valid(overlay: str, version: str) -> None:
    checked = [one for one in render(overlay) if _custom_kind(one) not in CUSTOM]
    for one in checked:
        _check_kubernetes(one, version)
    assert len(checked) > 20


@overlays
def test_objects_of_other_projects_have_fields_that_exist(overlay: str) -> None:
    for one in render(overlay):
        if _custom_kind(one) in CUSTOM:
            _check_custom(one)


def test_every_schema_is_used() -> None:
    kinds = {_custom_kind(one) for overlay in OVERLAYS for one in render(overlay)}
    assert set(CUSTOM) - {"$defs"} <= kinds


def test_a_misspelt_field_is_found() -> None:
    (deployment, *_) = of_kind("production", "Deployment")
    (scaled, *_) = of_kind("production", "ScaledObject")
    for one, check in (
        (deployment, lambda o: _check_kubernetes(o, "1.30")),
        (scaled, _check_custom),
    ):
        check(one)
        with pytest.raises(Exception, match="replica"):
            check(one | {"spec": one["spec"] | {"replicaz": 1}})


def test_a_build_on_a_ray_cluster_runs_a_program_that_exists_in_pods_that_do() -> None:
    (job,) = of_kind("ray", "RayJob")
    spec = job["spec"]
    words = spec["entrypoint"].split()
    assert words[:4] == ["python", "-P", "-m", "index_builder"]
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    head = cluster["headGroupSpec"]["template"]
    environ = {
        one["name"]: one["value"] for one in head["spec"]["containers"][0]["env"] if "value" in one
    }
    settings = IndexBuilderSettings.load(parse_arguments(words[4:], IndexBuilderSettings), environ)
    assert (settings.executor, settings.ray_address) == ("ray", "auto")
    assert settings.shards == of_kind("ray", "StatefulSet")[0]["spec"]["replicas"]
    # The store of all others, under the name that kustomize gives it.
    (store,) = {
        one["valueFrom"]["configMapKeyRef"]["name"]
        for one in head["spec"]["containers"][0]["env"]
        if "configMapKeyRef" in one.get("valueFrom", {})
    }
    assert store in [one["metadata"]["name"] for one in of_kind("ray", "ConfigMap")]
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"ray=={cluster['rayVersion']}" in constraints
    for template in (head, workers["template"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **template}
        _check_kubernetes(pod, VERSIONS[0])
        assert template["spec"]["containers"][0]["image"].startswith("nearline-index-builder-ray:")
    assert "AS index_builder-ray\n" in DOCKERFILE
    # A suspended job is one that nobody asked for yet.
    assert spec["suspend"] and spec["shutdownAfterJobFinishes"]
