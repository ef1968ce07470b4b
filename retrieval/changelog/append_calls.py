"""Append requests as calls of the Lua script, one per partition, and parsing of its replies."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from nearline.contract import WriteOutcome
from nearline.store.snapshot import partition_of
from retrieval.changelog.codec import content_digest, encode_change
from retrieval.changelog.keys import partition_keys
from retrieval.changelog.records import ChangeKind, ChangeResult, ChangeWrite

IDEMPOTENT_S = 86_400
_KINDS = {ChangeKind.UPSERT: "U", ChangeKind.DELETE: "D", ChangeKind.ATTRIBUTES: "A"}
_OUTCOMES = {
    "A": WriteOutcome.APPLIED,
    "R": WriteOutcome.REPLACED,
    "D": WriteOutcome.DELETED,
    "N": WriteOutcome.ABSENT,
    "U": WriteOutcome.UNCHANGED,
    "S": WriteOutcome.SUPERSEDED,
}


class AppendCall(NamedTuple):
    """The writes of a request to one partition. numbers: Positions of the writes in the request."""

    partition: int
    numbers: list[int]
    keys: list[str]
    arguments: list[str | bytes | int]


class AppendCalls(NamedTuple):
    """A request by partition. digest: `content_digest`; empty without an idempotency key."""

    calls: list[AppendCall]
    digest: str


def make_append_calls(
    collection: str, log_id: str, writes: Sequence[ChangeWrite], idempotency_key: str
) -> AppendCalls:
    """Splits a request by partition; see `lua_scripts.APPEND`."""
    digest = content_digest(writes) if idempotency_key else ""
    nonce = secrets.token_hex(8)
    calls: dict[int, AppendCall] = {}
    for number, write in enumerate(writes):
        partition = partition_of(write.change.document_id)
        call = calls.get(partition)
        if call is None:
            keys = partition_keys(collection, partition)
            names = [keys.meta, keys.log, keys.versions]
            if idempotency_key:
                names.append(keys.done(log_id, idempotency_key))
            call = AppendCall(partition, [], names, [log_id, nonce, digest, IDEMPOTENT_S])
            calls[partition] = call
        call.numbers.append(number)
        call.arguments.extend(
            (
                write.change.document_id,
                _KINDS[write.change.kind],
                "" if write.base_version is None else write.base_version,
                write.base_position,
                "" if write.if_version is None else write.if_version,
                "" if write.as_of_us is None else write.as_of_us,
                encode_change(write.change),
            )
        )
    return AppendCalls(list(calls.values()), digest)


def parse_result(word: str, write: ChangeWrite) -> ChangeResult:
    """Parses the reply of the script to one write."""
    letter, version = word[0], int(word[1:])
    if letter != "C":
        return ChangeResult(_OUTCOMES[letter], version)
    found = f"it has version {version}" if version else "it was never changed, or does not exist"
    return ChangeResult(
        WriteOutcome.REJECTED,
        version,
        "CONFLICT",
        f"the change requires version {write.if_version} of the item, but {found}; read it again",
    )
