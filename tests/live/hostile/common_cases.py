"""Cases for every method of every service: bytes that are no request of it."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import nearline.internal.v1.shard_pb2 as shard
import nearline.v1.admin_pb2 as admin
import nearline.v1.embedding_pb2 as embedding
import nearline.v1.generation_pb2 as generation
import nearline.v1.ingest_pb2 as ingest
import nearline.v1.retrieval_pb2 as retrieval
from tests.live.hostile.cases import OK, Case
from tests.live.hostile.wire_bytes import raw, text_paths

HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_FILES = (admin, embedding, generation, ingest, retrieval, shard)
_SERVICES: dict[str, ServiceDescriptor] = {
    name: found for one in _FILES for name, found in one.DESCRIPTOR.services_by_name.items()
}
# Not UTF-8: a byte of no character, half a character, a surrogate, and one beyond Unicode.
_NO_TEXT = (b"\xff", b"abc\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")


def common_cases(*services: str) -> list[Case]:
    """Returns the table of a server with these services, "RetrievalService"."""
    cases = [
        Case("health of an undecodable service", HEALTH, b"\x0a\x05\xff"),
        Case("reflection on noise", REFLECTION, [b"\xff" * 8]),
        Case("method of no service", "/nearline.v1.Nobody/Search", b"", "UNIMPLEMENTED"),
        Case("path without a method", "/x", b"", "UNIMPLEMENTED"),
        Case("path of parent folders", "/../../etc/passwd", b"", "UNIMPLEMENTED"),
        Case("path of 4 KB", "/" + "x" * 4_096, b"", "UNIMPLEMENTED"),
        Case("200 KB of metadata", HEALTH, b"", "RESOURCE_EXHAUSTED", by_grpc=True,
             metadata=tuple((f"x-{number}", "y" * 2_000) for number in range(100))),
        Case("binary metadata", HEALTH, b"", OK,
             metadata=(("x-bin", b"\0\xff"), ("x-request-id", "r" * 1_000))),
    ]  # fmt: skip
    for service in services:
        cases.append(Case(f"unknown method of {service}", f"{service}/Nothing", b"\xff",
                          "UNIMPLEMENTED"))  # fmt: skip
        for method in _SERVICES[service].methods:
            cases += _undecodable(f"{service}/{method.name}", method)
    return cases


def _undecodable(path: str, method: MethodDescriptor) -> Iterator[Case]:
    kind: type[Message] = GetMessageClass(method.input_type)
    says = f"are not a request of {method.name}"
    for name, data in {
        "noise": b"\xff" * 16,
        "a field that ends early": b"\x0a\x7fab",
        "a length of 2^63": b"\x0a" + b"\xff" * 8 + b"\x7f",
        "an open group": b"\x0b" * 200,
    }.items():
        yield Case(f"{method.name}: {name}", path, data, says=says)
    for at, field in enumerate(text_paths(kind)):
        data = raw(kind, field, _NO_TEXT[at % len(_NO_TEXT)])
        yield Case(f"{method.name}: {field} is not UTF-8", path, data, says=says)
