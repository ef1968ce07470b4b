"""A gRPC server that returns an empty reply: the minimum cost of any call on this machine.

It stops when its standard input closes.
Run: python -m benchmarks.baselines.echo_server
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from nearline.serving import use_batch_scheduling
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc


class EchoServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers Recommend with an empty list."""

    async def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:
        return pb.RecommendResponse()


async def main() -> None:
    server = grpc.aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(EchoServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    # The same event loop and scheduling as nearline's servers.
    use_batch_scheduling()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
