"""Minimal gRPC servers on a free port, which run until their standard input closes.

Run: python -m benchmarks.baselines.minimal_server: it returns empty replies, the minimum cost of
any call on this machine.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from nearline.thread_priority import use_batch_scheduling
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc


def run_server(servicer: retrieval_pb2_grpc.RetrievalServiceServicer) -> None:
    """Serves, with the event loop and scheduling of Nearline's servers; prints the address."""
    use_batch_scheduling()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(servicer))


async def _serve(servicer: retrieval_pb2_grpc.RetrievalServiceServicer) -> None:
    server = grpc.aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


class EchoServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers Recommend with an empty list."""

    async def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:
        return pb.RecommendResponse()


if __name__ == "__main__":
    run_server(EchoServicer())
