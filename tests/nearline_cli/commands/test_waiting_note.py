"""Tests of commands that wait for a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from nearline import contract as c
from nearline.clients import IngestClient
from nearline.errors import NotReady
from nearline_cli.inputs.sources import SizedSource
from nearline_cli.inputs.submitter import JobOptions, Submitter, wait_for_job


async def test_a_queue_that_keeps_the_command_waiting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nearline_cli.terminal.progress._NOTE_AFTER_S", 0.0)
    failures: list[NotReady] = []
    ended = cast(c.Job, SimpleNamespace(ended=True))

    class Client:
        address = "here:1"

        async def submit(self, *sources: object, **options: object) -> c.Job:
            await asyncio.sleep(0.01)
            return ended

        async def watch(self, job_id: str) -> AsyncIterator[c.Job]:
            if failures:
                raise failures.pop()
            yield ended

    monkeypatch.setattr("nearline_cli.inputs.submitter._PAUSE_S", 0.0)
    client = cast(IngestClient, Client())
    options = JobOptions(
        job_id="j",
        collection="default",
        tenant="t",
        priority=c.JobPriority.NORMAL,
        callback_id="",
        result_ttl_s=None,
    )
    for quiet, lines in ((False, 2), (True, 0)):
        submitter = Submitter(client, options, lambda job: None, quiet=quiet)
        await submitter.submit(iter([SizedSource(c.Item(id="a", text="x"), 1)]))
        failures[:] = [NotReady("Redis does not answer")]
        await wait_for_job(client, "j", lambda job: None, quiet=quiet)
        assert capsys.readouterr().err == "waiting for here:1 …\n" * lines
