"""compose.yaml, run as processes: the commands that it shows, two builds, kills and an upgrade."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import urllib.request
from pathlib import Path

import pytest

from benchmarks.fleet.compose import ComposeFleet
from benchmarks.fleet.container_process import Executed
from nearline import Item, RetrievalClient, contract as c
from nearline.clients import AdminClient, IngestClient
from tests.deploy.fleet_parts import (
    DOCUMENTS,
    ROOT,
    check_learned,
    failures,
    load_record,
    needs_containers,
    post,
    visits,
    write_documents,
)

pytestmark = [pytest.mark.service, pytest.mark.long, needs_containers]
FILE = ROOT / "compose.yaml"
# Images of others, whose files are tested elsewhere.
NOT_RUN = {"prometheus", "grafana"}
SERVERS = {
    *("embedding", "shard-0", "shard-1", "router", "generation", "gateway", "ingest", "worker"),
    "upkeep",
}
BUILD = ("run", "--rm", "--volume", "$PWD/documents:/documents:ro", "build", "--corpus")


def shown_commands() -> list[list[str]]:
    """Returns the commands of docker compose that the file shows, in order."""
    lines = re.findall(r"^#   docker compose (.*)$", FILE.read_text("utf-8"), re.M)
    return [shlex.split(line) for line in lines]


async def compose(fleet: ComposeFleet, words: list[str], folder: Path) -> Executed | None:
    """Does what `docker compose` does with these words; $PWD is the folder."""
    options: dict[str, list[str]] = {}
    plain: list[str] = []
    rest = [word.replace("$PWD", str(folder)) for word in words]
    while rest:
        word = rest.pop(0)
        if plain[:1] == ["run"] and len(plain) == 2:
            plain.append(word)  # What follows is the container's.
        elif word in ("--profile", "--volume", "--scale"):
            options.setdefault(word, []).append(rest.pop(0))
        elif word.startswith("--"):
            options[word] = []
        else:
            plain.append(word)
    command, *names = plain
    match command:
        case "run":
            assert "--rm" in options
            return await fleet.run(names[0], names[1:], options.get("--volume", []))
        case "up" if "--force-recreate" in options:
            assert "--no-deps" in options
            for name in names:
                await fleet.replace(name)
        case "up":
            profiles = options.get("--profile", [])
            if profiles:
                named = {n for n, one in fleet.services.items() if set(one.profiles) & {*profiles}}
                assert named == NOT_RUN
                return None
            scale = dict(one.split("=") for one in options.get("--scale", []))
            await fleet.up(names, scale={name: int(many) for name, many in scale.items()})
        case "down":
            await fleet.close()
        case "build":
            # Every target was read from the Dockerfile; `make image` builds them.
            built = {name for name, one in fleet.services.items() if one.image is not None}
            assert built == {*SERVERS, "build", "cli"}
        case _:
            raise AssertionError(f"docker compose {command} is not known to this test")
    return None


def scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:9464/metrics", timeout=30) as reply:
        return str(reply.read().decode())


async def until_epoch(admin: AdminClient, epoch: int) -> None:
    """Waits until the router serves an epoch."""
    async with asyncio.timeout(120):
        while (await admin.serving_status()).collections[0].epoch < epoch:
            await asyncio.sleep(0.2)


@pytest.mark.timeout(1500)
async def test_the_commands_that_the_file_shows_build_serve_ask_scale_upgrade_and_end(
    tmp_path: Path,
) -> None:
    write_documents(tmp_path / "documents")
    async with ComposeFleet(FILE, tmp_path / "fleet") as fleet:
        outputs = []
        for words in shown_commands():
            if words[0] == "down":
                await check_a_serving_fleet(fleet, tmp_path)
            done = await compose(fleet, words, tmp_path)
            if done is not None:
                assert done.code == 0, f"{words}: {done.output}"
                outputs.append(done.output)
            if "--scale" in words:
                assert len(fleet.containers("worker")) == 2
        assert len(outputs) == 2 and "default" in outputs[1]
        assert not fleet.all_containers()
        # Each ended within its grace period, on its own.
        assert {stop.name.rpartition("-")[0] for stop in fleet.stops} == {*SERVERS, "redis"}
        assert not [stop for stop in fleet.stops if stop.killed or stop.code], fleet.stops


async def check_a_serving_fleet(fleet: ComposeFleet, folder: Path) -> None:
    """Searches, asks, writes, ingests, builds again, and scrapes."""
    gateway = fleet.address("gateway", 7706)
    found = await asyncio.to_thread(
        post, gateway, "/v1/collections/default/search", {"query": {"text": "boats on river 7"}}
    )
    assert found["result"]["hits"][0]["id"] == "d7.md"
    words = ["run", "--rm", "cli", "ask", "How many boats does river 7 carry?"]
    answer = await compose(fleet, words, folder)
    assert answer is not None and answer.code == 0 and "49 boats" in answer.output
    router = fleet.address("router", 7700)
    async with (
        RetrievalClient(router) as client,
        AdminClient(router) as admin,
        IngestClient(fleet.address("ingest", 7705)) as door,
    ):
        job = await door.submit([c.SourceFile("queued.md", b"The lock of Panama is old.")])
        seen = [one async for one in door.watch(job.job_id, timeout_s=120.0)]
        assert seen[-1].state is c.JobState.SUCCEEDED
        written = await client.upsert_items([Item(id="live", text="The canal of Suez is long.")])
        path = "/v1/collections/default/interactions"
        await asyncio.to_thread(post, gateway, path, {"interactions": visits()})
        # A second build learns, and has new documents and the changes since.
        before = (await admin.serving_status()).collections[0].epoch
        write_documents(folder / "documents", first=DOCUMENTS, count=1)
        built = await compose(fleet, [*BUILD, "/documents"], folder)
        assert built is not None and built.code == 0, built
        await until_epoch(admin, before + 1)
        await check_learned(gateway, json.loads(built.output.splitlines()[-1])["snapshot_id"])
        ids = [f"d{DOCUMENTS}.md", "d0.md", "queued.md", "live"]
        reply = await client.get_items(ids, min_watermark=written.watermark)
        assert [item.id for item in reply.items] == ids
    for container in fleet.all_containers():
        assert container.ready and not container.restarts, container.tail()
    for name in SERVERS:
        for container in fleet.containers(name):
            text = await asyncio.to_thread(scraped, container.address)
            assert "python_info" in text and "nearline_" in text


@pytest.mark.timeout(1500)
async def test_services_are_killed_and_replaced_under_load_and_callers_who_retry_lose_nothing(
    tmp_path: Path,
) -> None:
    write_documents(tmp_path / "documents")
    async with ComposeFleet(FILE, tmp_path / "fleet") as fleet:
        built = await compose(fleet, [*BUILD, "/documents"], tmp_path)
        assert built is not None and built.code == 0, built
        await fleet.up()
        # One container of each: while it is away, callers try again (--retry) within their budget.
        words = ["--retry", "--write", "--rate", "4", "--budget", "120"]
        load = fleet.start_client("load", "benchmarks.fleet.load", words)
        for name in ("gateway", "router", "shard-0", "embedding", "worker"):
            (container,) = fleet.containers(name)
            container.kill()
            async with asyncio.timeout(10):
                while container.ready:
                    await asyncio.sleep(0.05)
            await container.wait_ready(200)
            assert container.restarts == 1
        for name in ("shard-1", "router", "generation", "gateway"):
            await fleet.replace(name)
        await load.stop()
        record = load_record(load.log.read_text("utf-8"))
        print(record)
        assert not failures(record)
        assert sum(one["retried"] for one in record.values())
        assert all(one["sent"] for one in record.values())
        # Told to stop during calls, each let them end.
        assert not [stop for stop in fleet.stops if stop.killed or stop.code], fleet.stops
