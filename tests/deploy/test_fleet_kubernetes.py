"""Kubernetes manifests, run as processes: pods, probes, hooks, services, a rollout under load."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.fleet.kubernetes import Cluster, Manifests
from nearline import RetrievalClient, contract as c
from nearline.clients import AdminClient
from nearline.errors import NearlineError
from tests.deploy.fleet_parts import (
    check_learned,
    failures,
    kustomized,
    load_record,
    needs_containers,
    post,
    visits,
    write_documents,
)
from tests.waits import until

pytestmark = [pytest.mark.service, pytest.mark.long, needs_containers]
SHARDS = ("shards-a", "shards-b")


@contextlib.asynccontextmanager
async def serving(folder: Path, kustomization: str) -> AsyncIterator[Cluster]:
    """Runs the manifests of a folder, with a snapshot of forty documents."""
    async with Cluster(Manifests(kustomized(kustomization)), folder) as running:
        await running.apply()
        write_documents(running.claim("documents"))
        built = await running.run_job("build")
        assert built.code == 0, built.output
        yield running


async def until_loaded(running: Cluster) -> None:
    """Waits until every router finds documents: it looks for snapshots every few seconds."""
    options = c.SearchOptions(k=1, mode=c.SearchMode.HYBRID)
    for pod in running.of("router"):
        async with asyncio.timeout(120), RetrievalClient(f"{pod.address}:7700") as client:
            while True:
                with contextlib.suppress(NearlineError):
                    if (await client.search(c.Query(text="boats"), options)).hits:
                        break
                await asyncio.sleep(0.2)


@pytest.mark.timeout(1500)
async def test_a_rollout_of_every_workload_under_load_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path / "fleet", "tests/deploy/replicas") as running:
        await until_loaded(running)
        # No --retry: the client of Nearline, and one of a few lines for HTTP, call once.
        words = ["--rate", "8", "--budget", "30"]
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


async def until_all_replicas(running: Cluster) -> None:
    """Waits until every router reaches both replicas: it looks for a lost one every half second."""
    for pod in running.of("router"):
        async with asyncio.timeout(30), AdminClient(f"{pod.address}:7700") as admin:
            while True:
                (status,) = (await admin.serving_status()).collections
                if set(status.replicas_ready) == {len(SHARDS)}:
                    break
                await asyncio.sleep(0.1)


async def kill(running: Cluster, name: str) -> None:
    """Kills the first pod's container of a workload, and waits until it is back."""
    container = running.of(name)[0].container
    container.kill()
    await until(lambda: not container.ready)
    await container.wait_ready(200)
    assert container.restarts == 1


@pytest.mark.timeout(1500)
async def test_while_a_killed_shard_starts_again_its_replica_answers_every_request(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "fleet", "tests/deploy/replicas") as running:
        await until_loaded(running)
        # Callers call once.
        load = running.start_client("load", "benchmarks.fleet.load", ["--rate", "8"])
        for name in SHARDS:
            await kill(running, name)
            # A shard server is ready before a router has found it again.
            await until_all_replicas(running)
        await load.stop()
        record = load_record(load.log.read_text("utf-8"))
        print(record)
        assert all(one["sent"] for one in record.values())
        assert not failures(record)
        assert not sum(one["partial"] for one in record.values())


@pytest.mark.timeout(1500)
async def test_in_the_overlay_for_one_node_lists_learn_and_killed_services_return_without_a_loss(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "fleet", "deploy/kubernetes/overlays/dev") as running:
        await until_loaded(running)
        gateway = f"{running.of('gateway')[0].address}:7706"
        path = "/v1/collections/default/interactions"
        await asyncio.to_thread(post, gateway, path, {"interactions": visits()})
        built = await running.run_job("build")
        assert built.code == 0, built.output
        await check_learned(gateway, json.loads(built.output.splitlines()[-1])["snapshot_id"])
        words = ["--retry", "--rate", "4", "--budget", "120"]
        load = running.start_client("load", "benchmarks.fleet.load", words)
        for name in ("router", "embedding", "gateway", "worker"):
            await kill(running, name)
        await load.stop()
        record = load_record(load.log.read_text("utf-8"))
        print(record)
        assert all(one["sent"] for one in record.values())
        assert not failures(record)
