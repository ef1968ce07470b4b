"""Files in deploy/kubernetes are read without any tool: each is YAML, and each is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import FOLDER, OVERLAYS

KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
# Values of another chart, and Secrets to fill in.
EXAMPLES = {"adapter-rules.yaml", "secrets.example.yaml"}


def _named(kustomization: dict[str, Any]) -> Iterator[str]:
    yield from kustomization.get("resources", [])
    yield from kustomization.get("components", [])
    yield from kustomization.get("configurations", [])
    for patch in kustomization.get("patches", []):
        assert ("path" in patch) != ("patch" in patch)
        if "path" in patch:
            yield patch["path"]
        else:
            assert yaml.safe_load(patch["patch"])
    for generator in kustomization.get("secretGenerator", []):
        yield from generator.get("envs", [])


@pytest.mark.parametrize("file", KUSTOMIZATIONS, ids=lambda file: file.parent.name)
def test_a_kustomization_names_every_file_of_its_folder_and_no_other(file: Path) -> None:
    named = set(_named(yaml.safe_load(file.read_text("utf-8"))))
    for name in named:
        assert (file.parent / name).exists(), name
    files = {one.name for one in file.parent.iterdir() if one.is_file()}
    here = {name for name in named if "/" not in name}
    assert files - EXAMPLES == here | {"kustomization.yaml"}


def test_every_file_is_yaml() -> None:
    for file in FOLDER.rglob("*.yaml"):
        assert list(yaml.safe_load_all(file.read_text("utf-8"))), file


def test_every_overlay_and_component_is_checked() -> None:
    assert {one.name for one in (FOLDER / "overlays").iterdir()} | {"base"} == set(OVERLAYS)
    used = {
        name.rpartition("/")[2]
        for file in KUSTOMIZATIONS
        for name in _named(yaml.safe_load(file.read_text("utf-8")))
        if "components/" in name
    }
    assert used == {one.name for one in (FOLDER / "components").iterdir()}
