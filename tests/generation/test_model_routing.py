"""Two kinds of questions over gRPC reach two model servers, by the meaning that a model gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from generation.writers.question_kinds import AnswerKind, QuestionKinds
from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_snapshot
from nearline_cli.compose.build_context import open_embedder
from tests.generation.backends.chat_server import finish, serving, streams
from tests.generation.conftest import ITEMS
from tests.generation.service_harness import ask, asking

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]
REPLY = streams("The kettle boils water in 3 minutes [1].", finish("stop"))
# In other words than the prototypes.
KINDS = {
    AnswerKind.FACT: ("wich day do the shops close", "HOW OFTEN MUST THE FILTER BE REPLACED"),
    AnswerKind.INSTRUCTION: ("descale the machine at home, how", "steps for a forgotten password"),
    AnswerKind.COMPARISON: ("tuples vs lists", "should I choose wool or cotton"),
    AnswerKind.EXPLANATION: ("what led to the financial crisis of 2008?", "why does it hum"),
}


async def test_each_kind_of_question_reaches_its_model(tmp_path: Path) -> None:
    async with open_embedder("", quiet=True) as embedder:
        fingerprint = (await embedder.info()).fingerprint
        kinds = QuestionKinds(embedder)
        for kind, questions in KINDS.items():
            for question in questions:
                assert await kinds.of(question, None, fingerprint, None) is kind, question
        await build_snapshot(ITEMS, BuildOptions(store=str(tmp_path)), embedder)
        async with (
            serving(REPLY) as small,
            serving(REPLY) as large,
            asking(tmp_path, large.url, embedder=embedder, small=f"m@{small.url}") as address,
        ):
            one = await ask(address, "how do I descale the kettle?", documents=1)
            assert (len(small.exchanges), len(large.exchanges)) == (1, 0)
            two = await ask(address, "Kettle or lamp: which has advantages?", documents=1)
            assert (len(small.exchanges), len(large.exchanges)) == (1, 1)
    assert [came.done.served_by.rung for came in (one, two)] == ["small", "large"]
    assert one.citations and two.citations
