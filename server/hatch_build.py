"""Builds nearline-server from the packages beside this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Requires the client of exactly this version, besides what the configuration lists."""

    def update(self, metadata: dict[str, Any]) -> None:
        client = f"nearline=={metadata['version']}"
        metadata["dependencies"] = [client, *self.config["requires"]]


class NeighbouringPackages(BuildHookInterface):
    """Takes the packages from the repository, or from this folder if it is an unpacked sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        for package in self.config["packages"]:
            inside = root / package
            source = inside if inside.is_dir() else root.parent / package
            if not (source / "__init__.py").is_file():
                raise FileNotFoundError(f"{source} is no package; build from a whole checkout")
            build_data["force_include"][str(source)] = package
