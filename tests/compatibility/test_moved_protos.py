"""What moved to nearline.internal.v1 is on the wire, and in files, what it was in release 0.2.0."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from nearline.internal.v1 import change_pb2, model_pb2, shard_pb2, state_pb2, traffic_pb2

RELEASED = Path(__file__).parents[1] / "fixtures/release_0_2_0/protos.binpb"
FILES = {file.name: file for file in FileDescriptorSet.FromString(RELEASED.read_bytes()).file}
MOVED = (change_pb2, model_pb2, shard_pb2, state_pb2, traffic_pb2)


def _messages(file: FileDescriptorProto) -> dict[str, DescriptorProto]:
    found: dict[str, DescriptorProto] = {}

    def add(message: DescriptorProto, prefix: str) -> None:
        found[prefix + message.name] = message
        for nested in message.nested_type:
            add(nested, f"{prefix}{message.name}.")

    for message in file.message_type:
        add(message, "")
    return found


def _fields(message: DescriptorProto) -> set[tuple[int, str, int, int, str]]:
    """Returns number, name, type, label and, without its package, the type of each field."""
    return {
        (
            field.number,
            field.name,
            field.type,
            field.label,
            field.type_name.replace(".nearline.internal.v1.", ".nearline.v1."),
        )
        for field in message.field
    }


@pytest.mark.parametrize("module", MOVED)
def test_each_field_keeps_its_number_and_its_type(module: object) -> None:
    now = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(now)  # type: ignore[attr-defined]
    before = FILES[now.name.replace("nearline/internal/v1/", "nearline/v1/")]
    messages = _messages(now)
    for name, message in _messages(before).items():
        assert _fields(message) <= _fields(messages[name]), name
    for service, old in zip(now.service, before.service, strict=True):
        assert {one.name for one in old.method} <= {one.name for one in service.method}
