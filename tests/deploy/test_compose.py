"""Both Compose files name targets, modules, settings, ports and volumes that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import nearline
from benchmarks.fleet.compose import read_document
from benchmarks.fleet.dockerfile import Image, read_stage
from gateway.settings import GatewaySettings
from generation.settings import GenerationSettings
from index_builder.ingest.capacity import clamped
from index_builder.ingest.settings import IngestSettings, WorkerSettings
from index_builder.pipeline.maintenance_settings import UpkeepSettings
from index_builder.pipeline.settings import IndexBuilderSettings
from nearline import health
from nearline.settings import Settings, parse_arguments
from nearline_cli.local.bundled_redis import SETTINGS as REDIS_SETTINGS, find_program
from nearline_cli.local.processes import SHARD_SERVICES, service_process
from nearline_cli.local.service_settings import settings_of
from retrieval.settings import RouterSettings, ShardSettings
from retrieval.shards.topology import check_address, parse_topology
from tests.redis_server import INSTALLED
from tests.retrieval.small_snapshots import documents_of, write_snapshot

ROOT = Path(__file__).parents[2]
Service = dict[str, Any]  # As YAML has it.


COMPOSE = read_document(ROOT / "compose.yaml", {})
# Images of other projects are tested below, and the command by a run.
OTHERS = ("redis", "prometheus", "grafana")
SERVICES: dict[str, Service] = {
    name: service for name, service in COMPOSE["services"].items() if name not in (*OTHERS, "cli")
}
BATCH = ("build",)
REDIS: Service = COMPOSE["services"]["redis"]
METRICS_PORT = 9464
REDIS_URL = "redis://redis:6379/0"  # The port that a Redis has unless told.
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def _memory_mib(name: str) -> int:
    limit = str(COMPOSE["services"][name]["mem_limit"])
    return int(limit[:-1]) << {"m": 0, "g": 10}[limit[-1]]


def _image(service: Service) -> Image:
    return read_stage(DOCKERFILE, service["build"]["target"])


def _settings(service: Service) -> Settings:
    """Reads the settings as the container's process does, from arguments and environment."""
    image = _image(service)
    entrypoint = tuple(service.get("entrypoint") or image.entrypoint)
    assert entrypoint[:3] == ("python", "-P", "-m")
    kind = settings_of(entrypoint[3])
    assert kind is not None
    environ = image.environ | service.get("environment", {})
    return kind.load(parse_arguments(service.get("command", []), kind), environ)


def _port(name: str) -> int:
    port = getattr(_settings(SERVICES[name]), "port", 0)
    assert isinstance(port, int)
    return port


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_with_settings_that_exist(name: str) -> None:
    _settings(SERVICES[name])


@pytest.mark.parametrize("name", [*SERVICES, "cli"])
def test_a_service_has_an_image_of_its_own_target_and_writes_to_volumes_alone(name: str) -> None:
    service = COMPOSE["services"][name]
    target = service["build"]["target"]
    assert service["image"].partition(":")[0] == f"nearline-{target.replace('_', '-')}"
    assert _image(service).user == "10001:10001"
    assert service["build"]["args"] == {"BASE_IMAGE": "python:3.13-slim"}
    assert f"ARG BASE_IMAGE={service['build']['args']['BASE_IMAGE']}\n" in DOCKERFILE
    assert service["image"].rpartition(":")[2] == nearline.__version__
    for volume in service["volumes"]:
        assert volume.partition(":")[0] in COMPOSE["volumes"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_logs_are_rotated_and_memory_is_limited(name: str) -> None:
    assert COMPOSE["services"][name]["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert _memory_mib(name) >= 256


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in BATCH])
def test_every_server_has_its_metrics_on_one_port_that_is_not_published(name: str) -> None:
    assert getattr(_settings(SERVICES[name]), "metrics_port", 0) == METRICS_PORT
    assert not any(str(METRICS_PORT) in port for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in BATCH])
def test_a_server_is_asked_for_its_health_where_it_listens(name: str) -> None:
    test = SERVICES[name]["healthcheck"]["test"]
    module = "gateway.health" if name == "gateway" else "nearline.health"
    assert test == ["CMD", "python", "-P", "-m", module, f"127.0.0.1:{_port(name)}"]
    assert getattr(_settings(SERVICES[name]), "host", "") == "0.0.0.0"


def test_the_gateway_knows_every_service_that_has_a_door() -> None:
    gateway = _settings(SERVICES["gateway"])
    assert isinstance(gateway, GatewaySettings)
    assert gateway.retrieval == f"router:{_port('router')}"
    for name in ("generation", "ingest", "embedding"):
        assert getattr(gateway, name) == f"{name}:{_port(name)}"


def test_the_router_knows_every_shard_and_the_services_that_are_reached_through_it() -> None:
    router = _settings(SERVICES["router"])
    assert isinstance(router, RouterSettings)
    topology = parse_topology(router.shards)
    for number, addresses in topology.items():
        for address in addresses:
            name, _, port = check_address(address, "--shards").partition(":")
            shard = _settings(SERVICES[name])
            assert isinstance(shard, ShardSettings)
            assert (shard.numbers(), shard.port) == (frozenset({number}), int(port))
            assert (shard.embedding, shard.redis) == (router.embedding, router.redis)
            assert set(SERVICES[name]["depends_on"]) == {"redis"}
    for name in ("embedding", "generation", "ingest"):
        assert getattr(router, name) == f"{name}:{_port(name)}"
    assert router.redis == REDIS_URL
    waits = {
        "embedding",
        "redis",
        *(one.partition(":")[0] for all_ in topology.values() for one in all_),
    }
    assert set(SERVICES["router"]["depends_on"]) == waits


def test_only_what_users_call_is_reached_from_outside_and_only_from_this_host() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert {name: ports for name, ports in published.items() if ports} == {
        name: [f"127.0.0.1:{_port(name)}:{_port(name)}"]
        for name in ("gateway", "router", "generation", "ingest")
    }


def test_the_generation_service_knows_router_embedding_service_and_redis() -> None:
    chosen = _settings(SERVICES["generation"])
    assert isinstance(chosen, GenerationSettings)
    assert chosen.retrieval == f"router:{_port('router')}"
    assert chosen.embedding == f"embedding:{_port('embedding')}"
    assert chosen.redis == REDIS_URL
    assert set(SERVICES["generation"]["depends_on"]) == {"router", "redis"}


def test_workers_know_the_router_and_share_a_redis_with_the_door() -> None:
    door, worker = (_settings(SERVICES[name]) for name in ("ingest", "worker"))
    assert isinstance(door, IngestSettings) and isinstance(worker, WorkerSettings)
    assert worker.retrieval == f"router:{_port('router')}"
    assert door.redis == worker.redis == REDIS_URL
    assert set(SERVICES["ingest"]["depends_on"]) == {"redis"}
    assert set(SERVICES["worker"]["depends_on"]) == {"router", "redis"}
    # Several run beside each other.
    assert "ports" not in SERVICES["worker"] and "container_name" not in SERVICES["worker"]
    grace_s = float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
    assert worker.drain_s + worker.notice_s < grace_s


def test_redis_keeps_things_as_the_bundled_one_does() -> None:
    program, *words = REDIS["command"]
    given = {
        flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    assert program == "valkey-server" == (find_program().name if INSTALLED else program)
    # In a container, others than itself are to reach it; the network of the file is its wall.
    assert given == {**REDIS_SETTINGS, "dir": "/data", "protected-mode": "no"}
    assert REDIS["volumes"] == ["redis:/data"]
    assert "redis" in COMPOSE["volumes"]
    assert "ports" not in REDIS
    assert (REDIS["read_only"], REDIS["cap_drop"], REDIS["user"]) == (True, ["ALL"], "999:999")


def test_shards_do_not_write_to_the_store_and_who_names_logs_and_snapshots_does() -> None:
    mounted = {name: service["volumes"] for name, service in SERVICES.items()}
    assert mounted["build"] == mounted["router"] == mounted["upkeep"] == ["store:/store"]
    for name in ("shard-0", "shard-1"):
        assert mounted[name] == ["store:/store:ro"]
    for name in ("router", "shard-0", "shard-1"):
        assert getattr(_settings(SERVICES[name]), "store", "") == "/store"
    for name in ("build", "upkeep"):
        assert getattr(_settings(SERVICES[name]), "store", "") == "/store"


def test_upkeep_and_a_second_build_know_the_change_log() -> None:
    upkeep, build = (_settings(SERVICES[name]) for name in ("upkeep", "build"))
    assert isinstance(upkeep, UpkeepSettings) and isinstance(build, IndexBuilderSettings)
    # What it builds, it tries on the router.
    assert (upkeep.releases, upkeep.retrieval) == ("auto", f"router:{_port('router')}")
    assert upkeep.redis == build.redis == REDIS_URL
    assert upkeep.embedding == f"embedding:{_port('embedding')}"
    for name in ("upkeep", "build"):
        assert set(SERVICES[name]["depends_on"]) == {"embedding", "redis"}


def test_no_volume_hides_what_an_image_brings() -> None:
    # The converted model.
    brought = {_image(SERVICES["embedding"]).environ["NEARLINE_EMBEDDING_PREPARED_DIR"]}
    for service in SERVICES.values():
        assert brought.isdisjoint(volume.split(":")[1] for volume in service["volumes"])


def test_the_queue_leaves_more_than_half_of_redis_to_others() -> None:
    place = REDIS["command"].index("--maxmemory") + 1
    assert REDIS["command"][place] == "512mb"
    maxmemory = 512 << 20
    door = _settings(SERVICES["ingest"])
    assert isinstance(door, IngestSettings)
    held = clamped(door.queue_limits(), maxmemory)
    # Nothing is lowered, and so logged, at every start. Results may take twice their share.
    assert held == door.queue_limits()
    assert held.bytes + held.dead_bytes + 2 * held.result_bytes < maxmemory / 2
    # While it rewrites its file, it may need twice as much.
    assert _memory_mib("redis") << 20 > 2 * maxmemory


def test_monitoring_reads_files_that_exist_and_is_started_only_if_asked_for() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["monitoring"]
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.compose.yaml").read_text("utf-8"))
    (scrape,) = config["scrape_configs"]
    (found,) = scrape["dns_sd_configs"]
    assert found["port"] == METRICS_PORT
    assert set(found["names"]) == {name for name in SERVICES if name not in BATCH}


GPU_SERVICES: dict[str, Service] = read_document(ROOT / "compose.gpu.yaml", {})["services"]


@pytest.mark.parametrize("name", GPU_SERVICES)
def test_the_overlay_puts_a_service_on_a_gpu_and_changes_nothing_else(name: str) -> None:
    service, overlay = SERVICES[name], GPU_SERVICES[name]
    assert set(overlay) - {"environment"} == {"image", "build", "deploy"}
    named = {"NEARLINE_SHARD_DEVICE": "cuda"} if name.startswith("shard") else {}
    assert overlay.get("environment", {}) == named
    target = service["build"]["target"]
    assert overlay["build"] == {"target": f"{target}-gpu"}
    assert overlay["image"] == service["image"].replace(":", "-gpu:")
    # As Compose merges them: the image and the target are replaced.
    on_gpu = service | {"build": service["build"] | overlay["build"]}
    assert _settings(on_gpu) == _settings(service)
    (device,) = overlay["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}


def test_shards_and_their_build_and_the_embedding_service_use_gpus() -> None:
    assert set(GPU_SERVICES) == {"embedding", "shard-0", "shard-1", "build"}


@pytest.mark.parametrize("target", ["embedding-gpu", "retrieval-gpu", "index_builder-gpu"])
def test_an_image_for_gpus_lets_the_driver_in_and_runs_unprivileged(target: str) -> None:
    image = read_stage(DOCKERFILE, target)
    assert image.environ["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert image.environ["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert image.user == "10001:10001"


def test_a_build_has_as_many_shards_as_the_router_and_knows_the_model() -> None:
    build = _settings(SERVICES["build"])
    assert isinstance(build, IndexBuilderSettings)
    assert build.shards == len([name for name in SERVICES if name.startswith("shard-")])
    assert build.embedding == f"embedding:{_port('embedding')}"


@pytest.mark.service
async def test_health_tells_a_server_that_serves_from_one_that_is_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    write_snapshot(tmp_path, documents_of(np.eye(4, dtype=np.float32)))
    arguments = ["--store", str(tmp_path), "--drain-s", "0"]
    async with service_process(
        "retrieval.shard_server", arguments, ready_services=SHARD_SERVICES
    ) as server:
        address = server.address
        assert health.main([address]) == 0
    assert health.main([address]) == 1
    assert f"{address}: UNAVAILABLE" in capsys.readouterr().err
    assert health.main(["nowhere"]) == 2
