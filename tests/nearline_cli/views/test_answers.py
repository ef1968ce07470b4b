"""What `nearline ask` prints for each outcome."""

from __future__ import annotations

import json

import pytest

from nearline import contract as c, wire
from nearline.clients import GenerationClient
from nearline.tls import TlsFiles
from nearline.v1 import generation_pb2
from nearline_cli.views.answers import show_answer
from tests.gateway.gateways import Behind, services_of

TEXT = "Your documents may not answer this. The closest passages:\n\nIt boils. [1]"
INFO = c.ReplyInfo(
    epoch=1,
    snapshot_id="s",
    fingerprint="f",
    coverage=c.Coverage(shards_answered=1, shards_total=1),
)


async def shown(question: c.Question, *, not_sure: bool, as_json: bool = False) -> Behind:
    citation = c.Citation(
        number=1,
        document_id="kettle",
        chunk=0,
        char_start=0,
        char_end=9,
        text_hash="ab",
        snapshot_id="s",
        title="Kettle\x1b[31m",
    )
    events: list[c.AnswerEvent] = [
        c.Evidence(documents=[], info=INFO),
        c.Delta(TEXT),
        citation,
        c.Done(tokens=9, citations=1, evidence_probability=0.3, calibrated=True, not_sure=not_sure),
    ]
    behind = Behind()
    behind.answers["Generate"] = lambda request: map(wire.event_to_proto, events)
    async with (
        services_of(behind) as address,
        GenerationClient(address, token="", tls=TlsFiles()) as client,
    ):
        await show_answer(client, question, timeout_s=20.0, as_json=as_json)
    return behind


async def test_what_may_be_no_answer_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    behind = await shown(c.Question(text="x", strictness=c.Strictness.STRICT), not_sure=True)
    assert behind.request.strictness == generation_pb2.STRICTNESS_STRICT
    printed = capsys.readouterr().out
    assert printed.startswith(TEXT) and "[1] kettle 0-9  Kettle\\x1b[31m" in printed
    assert printed.splitlines()[-1].startswith("NOT SURE, these passages may be no answer, ")
    await shown(c.Question(text="x"), not_sure=False)
    assert "NOT SURE" not in capsys.readouterr().out


async def test_the_last_event_of_json_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for not_sure in (True, False):
        await shown(c.Question(text="x"), not_sure=not_sure, as_json=True)
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (last["event"], last["not_sure"]) == ("done", not_sure)
