"""Outcomes of documents when writing fails: only the document at fault is affected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from index_builder.ingest import document_writer
from index_builder.ingest.document_writer import Document, DocumentWriter, Failure
from index_builder.ingest.keys import Lane
from index_builder.ingest.records import LogPosition, Settlement, Unit
from nearline import contract as c
from nearline.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NearlineError,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
)
from nearline.store.snapshot import partition_of
from retrieval.protocols.watermark import Watermark

LOG = "ab" * 16
START = datetime(2026, 1, 1, tzinfo=UTC)
Fault = Callable[[Sequence[c.Item]], NearlineError | None]


class FaultyWriter:
    """Writes items in memory. fault: The error of a call, by its items."""

    def __init__(self, fault: Fault = lambda items: None) -> None:
        self._fault = fault
        self.items: dict[str, tuple[str, datetime]] = {}
        self.calls = 0

    async def upsert_items(
        self,
        items: Sequence[c.Item],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        only_attributes: bool = False,
        as_of: Mapping[str, datetime] | None = None,
        lane: c.Lane | None = None,
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        self.calls += 1
        assert collection == "books" and lane is c.Lane.BULK and as_of is not None
        error = self._fault(items)
        if error is not None:
            raise error
        results = []
        for item in items:
            outcome = c.WriteOutcome.APPLIED
            known = self.items.get(item.id)
            if known is not None:
                later, same = known[1] > as_of[item.id], known[1] == as_of[item.id]
                outcome = c.WriteOutcome.UNCHANGED if same else c.WriteOutcome.REPLACED
                outcome = c.WriteOutcome.SUPERSEDED if later else outcome
            reason = {
                "empty": "INVALID_REQUEST",
                "foreign": "PERMISSION_DENIED",
                "away": "NOT_READY",
            }.get(item.text, "")
            if reason:
                outcome = c.WriteOutcome.REJECTED
            elif outcome in (c.WriteOutcome.APPLIED, c.WriteOutcome.REPLACED):
                self.items[item.id] = item.text, as_of[item.id]
            results.append(
                c.WriteResult(id=item.id, outcome=outcome, version=7, reason=reason, message="why")
            )
        return c.WriteReply(results=results, watermark=Watermark(LOG).encode())

    async def delete_items(
        self,
        ids: Sequence[str],
        *,
        collection: str = c.DEFAULT_COLLECTION,
        if_versions: Mapping[str, int] | None = None,
        idempotency_key: str = "",
        timeout_s: float | None = None,
    ) -> c.WriteReply:
        raise AssertionError

    async def upsert_batches(
        self, batches: AsyncIterable[Sequence[c.Item]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        raise AssertionError

    async def delete_batches(
        self, batches: AsyncIterable[Sequence[str]], *, collection: str = c.DEFAULT_COLLECTION
    ) -> c.BulkWriteReply:
        raise AssertionError


def document(document_id: str, text: str = "text", second: int = 0) -> Document:
    item = c.Item(id=document_id, text=text)
    unit = Unit(
        lane=Lane(c.JobPriority.NORMAL, "t"),
        entry=f"{second}-{document_id}",
        job_id="job",
        collection="books",
        place=second,
        as_of=START + timedelta(seconds=second),
        source=item,
    )
    return Document(unit, item)


async def outcomes_of(writer: FaultyWriter, documents: Sequence[Document]) -> dict[str, str]:
    """Returns the outcome of each document, by entry."""
    ends = await DocumentWriter(writer).write("books", documents)
    assert len({id(one.unit) for one in ends}) == len(ends) == len(documents)
    return {
        one.unit.entry: f"failed {one.reason}" if isinstance(one, Failure) else one.outcome.value
        for one in ends
    }


async def test_each_document_has_its_own_outcome() -> None:
    writer = FaultyWriter()
    documents = [document("a"), document("b", "empty"), document("c", "away")]
    settled = await DocumentWriter(writer).write("books", documents)
    ends = {one.unit.source.id: one for one in settled}  # type: ignore[union-attr]
    assert ends["a"] == Settlement(
        unit=documents[0].unit,
        outcome=c.IngestOutcome.INDEXED,
        document_id="a",
        indexed=LogPosition(LOG, partition_of("a"), 7),
    )
    assert ends["b"] == Settlement(
        unit=documents[1].unit,
        outcome=c.IngestOutcome.DEAD,
        document_id="b",
        reason="INVALID_REQUEST",
        message="why",
    )
    # An unavailable shard is a transient failure.
    assert ends["c"] == Failure(documents[2].unit, "NOT_READY", "why")


async def test_documents_written_by_a_lost_worker_count_as_indexed() -> None:
    writer = FaultyWriter()
    assert await outcomes_of(writer, [document("a", second=5)]) == {"5-a": "indexed"}
    assert await outcomes_of(writer, [document("a", second=5)]) == {"5-a": "indexed"}
    assert await outcomes_of(writer, [document("a", second=4)]) == {"4-a": "superseded"}


async def test_the_last_submission_of_an_id_is_written() -> None:
    writer = FaultyWriter()
    documents = [document("a", "one", 1), document("a", "three", 3), document("a", "two", 2)]
    assert await outcomes_of(writer, documents) == {
        "1-a": "superseded",
        "2-a": "superseded",
        "3-a": "indexed",
    }
    assert writer.items["a"][0] == "three" and writer.calls == 1


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (InvalidRequest("bad"), "dead"),
        (InternalError("bug"), "failed INTERNAL"),
        (DeadlineExceeded("late"), "failed DEADLINE_EXCEEDED"),
    ],
)
async def test_the_document_at_fault_is_isolated(error: NearlineError, end: str) -> None:
    writer = FaultyWriter(lambda items: error if any(one.id == "bad" for one in items) else None)
    names = [f"d{number}" for number in range(40)]
    documents = [document(one) for one in (*names[:13], "bad", *names[13:])]
    ends = await outcomes_of(writer, documents)
    assert ends.pop("0-bad") == end
    assert ends == {f"0-{one}": "indexed" for one in names}
    assert writer.items.keys() == set(names)
    # Bisection: at most two calls for each of the six levels.
    assert writer.calls <= 13


async def test_the_item_of_somebody_else_is_dead_at_once_and_a_refused_worker_kills_nothing() -> (
    None
):
    documents = [document("a"), document("b", "foreign"), document("c", "away")]
    assert await outcomes_of(FaultyWriter(), documents) == {
        "0-a": "indexed",
        "0-b": "dead",
        "0-c": "failed NOT_READY",
    }
    # A key without the right: the operator's fault, not the document's.
    writer = FaultyWriter(lambda items: PermissionDenied("needs the right 'service'"))
    assert await outcomes_of(writer, [document("a")]) == {"0-a": "failed PERMISSION_DENIED"}


async def test_an_error_of_the_service_fails_all_documents_of_the_call() -> None:
    writer = FaultyWriter(lambda items: NotFound("no collection"))
    ends = await outcomes_of(writer, [document(f"d{number}") for number in range(40)])
    assert set(ends.values()) == {"failed NOT_FOUND"} and writer.calls == 1


@pytest.mark.parametrize("error", [NotReady, Overloaded])
async def test_an_unavailable_service_is_waited_for(
    error: type[NearlineError],
) -> None:
    errors = [error("later", retry_after_s=0.0), error("later", retry_after_s=0.0)]
    writer = FaultyWriter(lambda items: errors.pop() if errors else None)
    async with asyncio.timeout(5):
        assert await outcomes_of(writer, [document("a")]) == {"0-a": "indexed"}
    assert writer.calls == 3


async def test_long_texts_are_split_into_several_calls() -> None:
    sizes: list[int] = []
    writer = FaultyWriter(lambda items: sizes.append(sum(len(one.text) for one in items)))
    text = "x" * 1_000_000
    documents = [document(f"d{number}", text) for number in range(7)]
    assert set((await outcomes_of(writer, documents)).values()) == {"indexed"}
    assert sizes == [4_000_000, 3_000_000]


async def test_a_document_too_large_is_a_dead_letter_and_not_sent() -> None:
    # A message that is too large is refused like a request to an overloaded service.
    writer = FaultyWriter(lambda items: Overloaded("") if len(items[0].text) > 9 else None)
    documents = [document("a"), document("large", "x" * (c.MAX_TEXT_BYTES + 1))]
    async with asyncio.timeout(5):
        ends = await DocumentWriter(writer).write("books", documents)
    by_id = {one.document_id: one for one in ends if isinstance(one, Settlement)}
    assert by_id["a"].outcome is c.IngestOutcome.INDEXED
    assert by_id["large"].outcome is c.IngestOutcome.DEAD
    assert "text has 1048577 bytes" in by_id["large"].message


async def test_a_clock_of_redis_that_is_ahead_delays_documents_and_kills_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document_writer, "_RETRY_S", 0.0)
    refusals = iter([InvalidRequest("as_of of 'a' is …", field="as_of")] * 2)
    writer = FaultyWriter(lambda items: next(refusals, None))
    assert set((await outcomes_of(writer, [document("a"), document("b", "text", 1)])).values()) == {
        "indexed"
    }
    assert writer.calls == 3
