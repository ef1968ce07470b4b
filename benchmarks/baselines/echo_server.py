"""A gRPC server that returns an empty reply: the minimum cost of any call on this machine.

It stops when its standard input closes.
Run: python -m benchmarks.baselines.echo_server
"""

from __future__ import annotations

from typing import Any

from benchmarks.baselines.minimal_server import run_server
from nearline.v1 import retrieval_pb2 as pb, retrieval_pb2_grpc


class EchoServicer(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Answers Recommend with an empty list."""

    async def Recommend(self, request: pb.RecommendRequest, context: Any) -> pb.RecommendResponse:
        return pb.RecommendResponse()


if __name__ == "__main__":
    run_server(EchoServicer())
