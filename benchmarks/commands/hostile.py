"""`nearline bench hostile`: what hostile clients do to other callers, to memory and to the stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

from benchmarks.workloads.call_prober import HEALTH, CallProber, ProbedCall
from benchmarks.workloads.deployment import Deployment, deployment, key_environ
from benchmarks.workloads.figures import percentile_ms, print_rows
from benchmarks.workloads.hostile_clients import ATTACKS, AttackedPort, check, under_attack
from benchmarks.workloads.process_memory import forget_peak, memory
from nearline import Client, Item
from nearline.errors import NotReady
from nearline.settings import ServerSettings
from nearline.tls import TlsFiles
from nearline.v1 import embedding_pb2, generation_pb2, retrieval_pb2
from nearline_cli.terminal.output import JsonFlag, print_note

_MOST_RATIO, _MOST_HEALTH_S, _MOST_MIB = 3.0, 1.0, 256.0
# Beyond drain and grace, for the end of the interpreter.
_END_S = 1.0
# It has no setting.
_GATEWAY_GRACE_S = 10.0
_RESTART_S = 120.0
# Other programs delay some of several tries.
_TRIES = 3
_LEAST_CALLS = 30
_SECTIONS = ("RETRIEVAL", "EMBEDDING", "GENERATION", "INGEST", "UPKEEP")
_CITATION = {"document_id": "d1", "char_end": 1, "text_hash": "0" * 64}
_SEARCH = "/v1/collections/default/search"
# The calls of another caller, by process; those of other processes ask for its health.
_CALLS = {
    "retrieval": (
        "/nearline.v1.RetrievalService/Search",
        retrieval_pb2.SearchRequest(query={"text": "tea"}).SerializeToString(),
    ),
    "embedding": (
        "/nearline.v1.EmbeddingService/Embed",
        embedding_pb2.EmbedRequest(texts=["tea"]).SerializeToString(),
    ),
    "generation": (
        "/nearline.v1.GenerationService/VerifyCitation",
        generation_pb2.VerifyCitationRequest(citations=[_CITATION]).SerializeToString(),
    ),
    "ingest": ("/nearline.v1.IngestService/GetQueue", b""),
    "gateway": (_SEARCH, b'{"query":{"text":"tea"}}'),
}


class Port(NamedTuple):
    """A port of a process. calls: Those of another caller, and of health."""

    process: str
    kind: str
    target: AttackedPort
    calls: tuple[ProbedCall, ProbedCall]


class Row(NamedTuple):
    """Figures of an attack on a port. stop_s: Seconds from SIGTERM until the process has ended."""

    attack: str
    process: str
    port: str
    quiet_p99_ms: float
    p99_ms: float
    health_s: float
    memory_mib: float
    stop_s: float = 0.0

    def missed(self, grace_s: float = 0.0) -> str:
        """Returns the bars that were missed, separated by commas."""
        grace_s = _GATEWAY_GRACE_S if self.process == "gateway" else grace_s
        most_stop_s = ServerSettings().drain_s + grace_s + _END_S
        bars = {
            "p99": self.p99_ms <= _MOST_RATIO * self.quiet_p99_ms,
            "health": self.health_s <= _MOST_HEALTH_S,
            "memory": self.memory_mib <= _MOST_MIB,
            "stop": self.stop_s <= most_stop_s,
        }
        return ", ".join(name for name, met in bars.items() if not met)


class Attacker(NamedTuple):
    """How ports are attacked; see the options of the command.

    ca, token: File that signs the certificates of services; a key of theirs.
    """

    seconds: float
    sockets: int
    every_s: float
    ca: str
    token: str

    def ports(self, name: str, up: Deployment) -> Iterator[Port]:
        """Yields the ports of a process."""
        process = up.processes[name]
        address = str(process["address"])
        metrics = f"127.0.0.1:{process['metrics_port']}"
        http = name == "gateway"
        health = ProbedCall(address, "/healthz" if http else HEALTH, b"", http, "", self.ca)
        path, body = _CALLS.get(name, (health.path, b""))
        caller = ProbedCall(address, path, body, http, self.token, self.ca)
        tls = ssl.create_default_context(cafile=self.ca)
        tls.set_alpn_protocols(["http/1.1" if http else "h2"])
        more = (self.sockets, self.every_s, ExitStack(), threading.Event())
        target = AttackedPort(address, "/openapi.json" if http else "", tls, *more)
        yield Port(name, "service", target, (caller, health))
        target = AttackedPort(metrics, "/metrics", None, *more)
        yield Port(name, "metrics", target, (caller, ProbedCall(metrics, "/metrics", b"", True)))

    def measure(self, attack: str, port: Port, pid: int, probers: Sequence[CallProber]) -> Row:
        """Attacks a port while others call; again if that missed a bar."""
        check(port.target)
        for _ in range(_TRIES):
            with ExitStack() as quiet:
                before = self._probe(probers, port, quiet)
                time.sleep(self.seconds)
            size = memory(pid, "VmRSS")
            forget_peak(pid)
            with ExitStack() as during:
                after = self._probe(probers, port, during)
                during.enter_context(under_attack(attack, port.target))
                time.sleep(self.seconds)
            grown = round((memory(pid, "VmHWM") - size) / (1 << 20), 1)
            p99 = [percentile_ms(one[0], 99) for one in (before, after)]
            names = (attack, port.process, port.kind)
            row = Row(*names, p99[0], p99[1], round(max(after[1]), 3), grown)
            if not row.missed():
                break
        return row

    def _probe(
        self, probers: Sequence[CallProber], port: Port, block: ExitStack
    ) -> list[list[float]]:
        return [
            block.enter_context(prober.probing(call, _LEAST_CALLS))
            for prober, call in zip(probers, port.calls, strict=True)
        ]


def bench_hostile(
    *,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Attack; may be repeated. \\[default: all]"),
    ] = None,
    process: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Process; may be repeated. \\[default: all]"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of each attack.")] = 10.0,
    sockets: Annotated[int, typer.Option(min=10, help="Idle connections.")] = 2_000,
    every_s: Annotated[
        float, typer.Option("--every", min=0.01, help="Seconds between bytes of slow clients.")
    ] = 29.0,
    grace_s: Annotated[float, typer.Option("--grace", help="grace_s of the services.")] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Attack every port of a `nearline up` that has TLS and keys, and stop what is attacked.

    Meanwhile another caller uses the same process. Prints a row for each attack and port, and exits
    with 1 if in each of three tries the caller's p99 was more than 3 times its quiet one, a health
    check took more than a second, or memory grew by more than 256 MiB, or if SIGTERM took longer
    than drain and grace.
    """
    attacks = _chosen("--attack", attack, ATTACKS)

    async def run(folder: Path) -> list[Row]:
        environ = await key_environ(folder, tls=True)
        environ |= {f"NEARLINE_{name}_GRACE_S": str(grace_s) for name in _SECTIONS}
        secrets = (environ["NEARLINE_TLS_CA"], environ["NEARLINE_TOKEN"])
        attacker = Attacker(seconds, sockets, every_s, *secrets)
        (folder / "store").mkdir()
        async with deployment(folder / "store", environ) as up:
            served = [name for name in up.processes if name != "redis"]
            names = _chosen("--process", process, served)
            return await asyncio.to_thread(_rows, up, attacker, attacks, names)

    with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
        rows = asyncio.run(run(Path(folder)))
    records = [row._asdict() | {"missed": row.missed(grace_s)} for row in rows]
    print_rows(records, as_json=as_json)
    missed = sum(bool(one["missed"]) for one in records)
    print_note(f"{len(rows)} attacks; {missed} missed a bar")
    raise typer.Exit(bool(missed))


def _chosen(option: str, names: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    every = list(known)
    for name in names or ():
        if name not in every:
            raise typer.BadParameter(f"{option} {name!r} is none of {', '.join(every)}")
    return list(names or every)


def _rows(
    up: Deployment, attacker: Attacker, attacks: Sequence[str], names: Sequence[str]
) -> list[Row]:
    tls = TlsFiles(authorities=attacker.ca)
    with Client(up.address, token=attacker.token, tls=tls) as client:
        client.collections.create("default")
        client.upsert([Item(id=f"d{number}", text=f"Tea {number}.") for number in range(100)])
    rows: list[Row] = []
    with CallProber() as caller, CallProber() as health:
        for attack in attacks:
            for name in names:
                ports, pid = list(attacker.ports(name, up)), int(up.processes[name]["pid"])
                found = [attacker.measure(attack, one, pid, (caller, health)) for one in ports]
                stop_s = _stop(attack, ports, up)
                rows += [row._replace(stop_s=stop_s) for row in found]
                print_note("\n".join(str(tuple(row)) for row in rows[-len(found) :]))
    return rows


def _stop(attack: str, ports: Sequence[Port], up: Deployment) -> float:
    """Stops a process while its ports are attacked, and waits until it serves again."""
    name = ports[0].process
    process = psutil.Process(up.processes[name]["pid"])
    with contextlib.ExitStack() as attacks:
        for port in ports:
            attacks.enter_context(under_attack(attack, port.target))
        start = time.monotonic()
        up.signal(name, signal.SIGTERM)
        process.wait(_RESTART_S)
        spent_s = time.monotonic() - start
    while up.processes[name]["pid"] == process.pid or up.processes[name]["state"] != "serving":
        if time.monotonic() > start + _RESTART_S:
            raise NotReady(f"{name} did not serve again in {_RESTART_S:g} s after it was stopped")
        time.sleep(0.1)
    return round(spent_s, 1)
