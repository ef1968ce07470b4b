"""The state of the ingest queue in one line, with the remedies for what is wrong."""

from __future__ import annotations

from nearline.contract import QueueState
from nearline.counts import counted
from nearline_cli.terminal import output

_NO_WORKER = "no worker runs: start nearline up, or python -m index_builder.ingest.worker"


def describe_queue(queue: QueueState) -> str:
    """Returns what is to do, who does it, and what is wrong with it."""
    oldest = f", the oldest for {output.format_age(queue.oldest_age_s)}" if queue.waiting else ""
    workers = f"{counted(len(queue.workers), 'worker')} at {queue.documents_per_s:.1f} documents/s"
    parts = [f"{queue.lag} to do{oldest}", workers, *queue_problems(queue)]
    return "; ".join(parts)


def queue_problems(queue: QueueState) -> list[str]:
    """Returns what is wrong with the queue, each with the remedy."""
    problems = []
    if queue.lag and not queue.workers:
        problems.append(_NO_WORKER)
    if queue.dead:
        problems.append(f"{counted(queue.dead, 'dead letter')}: nearline letters list")
    return problems
