"""Runs a minimal gRPC server on a free port until its standard input closes."""

from __future__ import annotations

import asyncio
import sys

import grpc
import uvloop

from nearline.thread_priority import use_batch_scheduling
from nearline.v1 import retrieval_pb2_grpc


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
