"""`nearline bench rollout`: false alarms and power of the analysis of rollouts."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.workloads.rollout_simulation import CanaryScenario, simulate
from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline.errors import InvalidRequest
from nearline_cli.evaluate.open_loop import run_open_loop
from nearline_cli.local.processes import RETRIEVAL_SERVICES, service_process
from nearline_cli.terminal.output import JsonFlag, print_figures

_COLLECTION = "rollout"
_DIM = 64
_DOCUMENTS = 5_000
_QUERIES = 200
_K = 20
_WARM_UP = 200
_TIMEOUT_S = 5.0
_OPTIONS = c.SearchOptions(k=_K, mode=c.SearchMode.DENSE, payload=frozenset({c.PayloadField.TEXT}))


def bench_rollout(
    runs: Annotated[int, typer.Option(min=1, help="Simulated rollouts per scenario.")] = 2_000,
    requests: Annotated[
        int, typer.Option(min=1, help="Requests per rollout, over both arms.")
    ] = 12_000,
    share: Annotated[float, typer.Option(min=0.001, max=0.999, help="Share of the canary.")] = 0.1,
    rate: Annotated[float, typer.Option(min=1, help="Requests per second.")] = 200.0,
    seconds: Annotated[
        float, typer.Option(min=1, help="Duration of the recorded trace in seconds.")
    ] = 30.0,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Latencies in seconds, one per line. \\[default: recorded now]"
        ),
    ] = None,
    save_trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the recorded trace.")
    ] = None,
    false_alarm: Annotated[
        float,
        typer.Option(min=1e-9, max=0.5, help="Accepted probability of aborting a good canary."),
    ] = 0.01,
    latency_ratio: Annotated[
        float,
        typer.Option(
            min=1, help="Accepted latency of the canary, relative to the current snapshot."
        ),
    ] = 1.1,
    min_recall: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Required recall@10 of the canary.")
    ] = 0.94,
    recall_sample: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the canary's requests whose recall is measured."),
    ] = 0.05,
    users: Annotated[
        int,
        typer.Option(
            min=0, help="Split requests by user, among this many users; 0: split by request."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random draws.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Split recorded latencies over two arms repeatedly, and count the canaries that are aborted.

    For example: nearline bench rollout --runs 2000

    Four scenarios: a canary that is as good, one that is as slow as allowed, one that is 30 %
    slower, and one with recall 0.8. The trace contains searches of a router in an open loop.
    """
    from retrieval.protocols.quantiles import quantiles
    from retrieval.rollout.analysis import CanaryLimits

    if trace is not None:
        trace_s = _read(trace)
    else:
        with tempfile.TemporaryDirectory(prefix="nearline-bench-") as folder:
            trace_s = asyncio.run(_record(Path(folder) / "store", rate, seconds, seed))
    if save_trace is not None:
        np.savetxt(save_trace, trace_s, fmt="%.6f")
    limits = CanaryLimits(
        false_alarm=false_alarm, latency_ratio=latency_ratio, min_recall=min_recall
    )
    good, at_limit, slow, imprecise = (
        simulate(
            trace_s,
            setting,
            limits,
            runs=runs,
            requests=requests,
            share=share,
            recall_sample=recall_sample,
            users=users,
            seed=seed + number,
        )
        for number, setting in enumerate(
            (
                CanaryScenario(),
                CanaryScenario(slower=latency_ratio),
                CanaryScenario(slower=1.3),
                CanaryScenario(recall=0.8),
            )
        )
    )
    p50, p99 = quantiles(trace_s.tolist(), (0.5, 0.99))
    record: dict[str, object] = {
        "runs": runs,
        "requests": requests,
        "share": share,
        "false_alarm_rate": good.rate,
        "false_alarm_rate_at_limit": at_limit.rate,
        "power_latency": slow.rate,
        "power_recall": imprecise.rate,
        "median_requests_latency": slow.median_requests,
        "median_requests_recall": imprecise.median_requests,
        "median_s_latency": _seconds(rate, slow.median_requests),
        "median_s_recall": _seconds(rate, imprecise.median_requests),
        "false_alarms": dict(good.tests + at_limit.tests),
        "trace_requests": len(trace_s),
        "trace_p50_ms": round(p50 * 1e3, 3),
        "trace_p99_ms": round(p99 * 1e3, 3),
        "rate": rate,
        "false_alarm": false_alarm,
        "latency_ratio": latency_ratio,
        "min_recall": min_recall,
        "recall_sample": recall_sample,
        "users": users,
        "seed": seed,
    }
    print_figures(record, as_json=as_json)


def _seconds(rate: float, requests: float | None) -> float | None:
    return None if requests is None else round(requests / rate, 2)


def _read(path: Path) -> NDArray[np.float64]:
    try:
        trace_s = np.array([float(line) for line in path.read_text().split()])
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"{path} cannot be read as a trace: {error}; give a file with one number per line"
        ) from error
    if not len(trace_s) or not np.isfinite(trace_s).all() or (trace_s < 0).any():
        raise InvalidRequest(
            f"{path} has no valid latencies: give one number >= 0 per line, in seconds"
        )
    return trace_s


async def _record(store: Path, rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Searches a small collection in an open loop; returns the latencies in order of arrival."""
    from index_builder.options.build_options import BuildOptions
    from index_builder.pipeline.builder import build_snapshot

    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(_DOCUMENTS + _QUERIES, _DIM)).astype(np.float32)
    queries = [c.Query(vector=row) for row in vectors[:_QUERIES]]
    items = [
        c.Item(id=f"d{row:06d}", text=f"document {row}", vector=vector)
        for row, vector in enumerate(vectors[_QUERIES:])
    ]
    await build_snapshot(
        items, BuildOptions(store=str(store), collection=_COLLECTION, promote=True)
    )
    arguments = ["--store", str(store), "--drain-s", "0"]
    async with (
        service_process("retrieval", arguments, ready_services=RETRIEVAL_SERVICES) as router,
        RetrievalClient(router.address) as client,
    ):
        for query in itertools.islice(itertools.cycle(queries), _WARM_UP):
            await client.search(query, _OPTIONS, collection=_COLLECTION, timeout_s=_TIMEOUT_S)
        return await _search(client, queries, rate, seconds)


async def _search(
    client: RetrievalClient, queries: list[c.Query], rate: float, seconds: float
) -> NDArray[np.float64]:
    loop = asyncio.get_running_loop()
    latencies_s = np.zeros(int(rate * seconds))

    async def send(number: int, due: float) -> None:
        await client.search(
            queries[number % len(queries)],
            _OPTIONS,
            collection=_COLLECTION,
            timeout_s=_TIMEOUT_S,
        )
        latencies_s[number] = loop.time() - due

    await run_open_loop(rate, range(len(latencies_s)), send)
    return latencies_s
