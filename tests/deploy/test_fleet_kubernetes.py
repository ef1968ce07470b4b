"""Kubernetes manifests, run as processes: pods, probes, hooks, services, a rollout under load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.fleet.cluster import Cluster, cluster
from benchmarks.fleet.manifests import read_manifests
from tests.deploy.fleet_parts import (
    ADDED,
    ROOT,
    failures,
    image_folders,
    kustomized,
    load_record,
    needs_containers,
    needs_kustomize,
    write_documents,
)

pytestmark = [pytest.mark.service, pytest.mark.long, needs_containers, needs_kustomize]
SHARDS = ("shards-a", "shards-b")


@contextlib.asynccontextmanager
async def serving(folder: Path, kustomization: str) -> AsyncIterator[Cluster]:
    """Runs the manifests of a folder, with a snapshot of forty documents."""
    manifests = read_manifests(kustomized(kustomization))
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    async with cluster(manifests, dockerfile, folder, image_folders(), ADDED) as running:
        await running.apply()
        write_documents(running.claim("documents"))
        built = await running.run_job("build")
        assert built.code == 0, built.output
        yield running


async def until_loaded(running: Cluster) -> None:
    """Waits until a client finds documents; shards look for snapshots every few seconds."""
    client = running.start_client("first", "benchmarks.fleet.load", ["--seconds", "1", "--retry"])
    assert await client.wait() == 0, client.tail()
    assert not failures(load_record(client.tail())), client.tail()


@pytest.mark.timeout(900)
async def test_a_rollout_of_every_workload_under_load_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path / "fleet", "tests/deploy/replicas") as running:
        await until_loaded(running)
        # No --retry: the client of Nearline, and one of a few lines for HTTP, call once.
        words = ["--rate", "4", "--budget", "30"]
        load = running.start_client("load", "benchmarks.fleet.load", words)
        for name in ("router", *SHARDS, "embedding", "generation", "gateway"):
            before = {pod.address for pod in running.of(name)}
            await running.roll_out(name)
            after = running.of(name)
            assert len(after) == len(before) and before.isdisjoint(pod.address for pod in after)
        await load.stop()
        record = load_record(load.log.read_text("utf-8"))
        print(record)
        assert all(one["sent"] > 20 for one in record.values())
        assert not failures(record)
        # Each shard had a replica all the time.
        assert not sum(one["partial"] for one in record.values())
        assert not [stop for stop in running.stops if stop.killed or stop.code], running.stops
