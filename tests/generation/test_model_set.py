"""The configured models, with their instructions and checks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from generation.evidence.evidence_reader import Evidence
from generation.model_set import open_model_set
from generation.protocols.writer import AnswerPiece
from generation.settings import GenerationSettings
from nearline import contract as c
from tests.generation.backends.chat_server import finish, serving, streams
from tests.generation.checks.test_entailment import Judge
from tests.generation.scripted_writers import evidence, task


@pytest.mark.service
@pytest.mark.parametrize("check", [True, False])
async def test_sentences_are_checked_by_a_model_only_if_that_is_set(check: bool) -> None:
    judge = Judge(0.0, 0.9)
    info = c.ReplyInfo(
        epoch=1,
        snapshot_id="a",
        fingerprint="f",
        coverage=c.Coverage(shards_answered=1, shards_total=1),
    )
    reply = c.SearchReply(results=[c.HitList(hits=[], language="english")], info=info)
    asked = replace(task(), found=Evidence("how?", reply, evidence()))
    said = streams("The kettle boils water in 3 minutes [1].", finish("stop"))
    async with serving(said) as server:
        settings = GenerationSettings.load({"large": f"m@{server.url}", "check_entailment": check})
        async with open_model_set(settings, judge) as models:
            events = [event async for event in models.writers["large"].write(asked)]
    sentence = "The kettle boils water in 3 minutes."
    assert [hypothesis for _, hypothesis in judge.asked] == ([sentence] if check else [])
    # The model says that the source contradicts it, so it is left out.
    pieces = [event.text for event in events if isinstance(event, AnswerPiece)]
    assert pieces == ([] if check else [sentence])
