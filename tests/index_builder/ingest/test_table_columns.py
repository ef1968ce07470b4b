"""CSV files in the queue are read as their collection has the attributes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from nearline import contract as c
from nearline.clients import AdminClient, IngestClient, RetrievalClient
from tests.index_builder.ingest.queue_processes import QueueProcesses
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, needs_redis]
CONTENT = b"id,text,genres,tags,moods\n1,a,rock|pop,a | b,x|y\n2,b,jazz,c,z\n"


@pytest_asyncio.fixture(name="collection")
async def give_collection(queue_processes: QueueProcesses) -> AsyncIterator[str]:
    """Returns a collection whose genres are texts, and whose tags are lists."""
    name = f"songs-{secrets.token_hex(4)}"
    async with AdminClient(queue_processes.retrieval) as admin:
        await admin.create_collection(name, attributes={"genres": "string", "tags": "string[]"})
        yield name
        await admin.drop_collection(name)


async def test_attributes_of_the_collection_decide_how_cells_are_read(
    collection: str, ingest_client: IngestClient, queue_processes: QueueProcesses
) -> None:
    file = c.SourceFile("songs.csv", CONTENT)
    job = await ingest_client.submit([file], collection=collection)
    async for seen in ingest_client.watch(job.job_id, timeout_s=60.0):
        job = seen
    assert job.state is c.JobState.SUCCEEDED
    expanded, *_ = (await ingest_client.results(job.job_id)).results
    # Only moods were detected; what the collection has needs no detection.
    assert (expanded.outcome, expanded.message) == (
        c.IngestOutcome.EXPANDED,
        'moods of songs.csv is read as lists, such as ["x", "y"], unless the collection has it as '
        "an attribute of kind string",
    )
    async with RetrievalClient(queue_processes.retrieval) as client:
        read = await client.get_items(
            ["1", "2"], collection=collection, min_watermark=job.watermark
        )
    assert [one.attributes for one in read.items] == [
        {"genres": "rock|pop", "tags": ["a", "b"], "moods": ["x", "y"]},
        {"genres": "jazz", "tags": ["c"], "moods": ["z"]},
    ]
