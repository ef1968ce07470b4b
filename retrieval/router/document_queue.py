"""Empties the document queue of a collection that was dropped."""

from __future__ import annotations

from typing import NamedTuple

from nearline.clients import IngestClient
from nearline.contract import JobState

_OPEN = (JobState.QUEUED, JobState.RUNNING)
_PAGE = 500


class EmptiedQueue(NamedTuple):
    """Numbers of the cancelled jobs and the deleted dead letters."""

    jobs: int
    dead_letters: int


async def empty_queue(ingest: IngestClient, collection: str) -> EmptiedQueue:
    """Cancels the jobs of a collection and deletes its dead letters.

    Finished jobs stay listed until they expire; none of their documents is written any more.

    Raises: Errors of the document queue; it is safe to repeat the call.
    """
    jobs = letters = 0
    token = ""
    while True:
        page = await ingest.jobs(collection=collection, states=_OPEN, page_size=_PAGE, token=token)
        for job in page.jobs:
            await ingest.cancel(job.job_id)
            jobs += 1
        token = page.token
        if not token:
            break
    while True:
        found = await ingest.dead_letters(page_size=_PAGE, token=token)
        mine = [one.letter_id for one in found.letters if one.collection == collection]
        letters += await ingest.delete_dead_letters(mine) if mine else 0
        token = found.token
        if not token:
            return EmptiedQueue(jobs, letters)
