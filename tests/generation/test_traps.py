"""Documents whose structure says what an answer needs, with the answer for each question.

The files are read as a folder is, and the shipped judge decides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from index_builder.options.build_options import BuildOptions
from index_builder.pipeline.builder import build_corpus
from index_builder.readers.columns import DocumentColumns
from index_builder.readers.corpus import Corpus
from nearline import contract as c
from nearline.clients.client import AsyncClient
from nearline_cli.compose.build_context import open_embedder
from tests.generation.service_harness import asking

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

FILES = {
    "settings.html": """<html><head><title>Reference of the settings</title></head><body>
<div class="navheader"><a href="a.html">Prev</a> <a href="i.html">Up</a> <a href="b.html">Next</a>
</div><div class="toc"><dl><dt>1. <a href="#s">Storage</a></dt><dt>2. <a href="#n">Network</a></dt>
</dl></div><h1>Reference of the settings</h1>
<h2 id="s">Storage <a href="#s">#</a></h2>
<dl><dt>retention_days</dt><dd><p>How long deleted records are kept.</p><p>The default is 35. With
0, they are removed at once.</p></dd>
<dt>compress_level</dt><dd><p>How hard old records are compressed.</p><p>The default is 0, which
means not at all.</p></dd></dl>
<h2 id="n">Network</h2>
<table><tr><th>Setting</th><th>Default</th><th>Meaning</th></tr>
<tr><td>upload_limit</td><td>25 MB</td><td>largest file of a request</td></tr>
<tr><td>idle_timeout</td><td>90 s</td><td>until a silent connection is closed</td></tr></table>
</body></html>""",
    "indexes.md": """# Indexes

An index makes searches fast. It costs some space.

To create an index without locking out writes to the table:

```
CREATE INDEX SLOWLY ON orders (day);
```

## How do I drop an index?

Use `DROP INDEX name`. It takes effect at once.
""",
    "returns.txt": """RETURNS AND PAYMENT
===================

Returns
-------

You have 45 days from the day the parcel reaches you to send things back.
Send them to our warehouse. We pay the postage, unless the parcel was damaged by you.

You can pay by:

* invoice, within 14 days
* credit card
* cash at the counter

Q: Do you ship abroad?
A: Yes. To all countries of the Union, for 12 euros.
""",
}
ANSWERS = [
    ("what is the default of retention_days?", ("35",), ("default is 0",)),
    ("how big can an uploaded file be?", ("25 MB",), ("90 s",)),
    ("when are quiet connections closed?", ("90 s",), ("25 MB",)),
    ("how can I build an index while others write?", ("CREATE INDEX SLOWLY",), ()),
    ("how can an index be dropped", ("DROP INDEX",), ()),
    pytest.param(
        "how do I get rid of an index",
        ("DROP INDEX",),
        (),
        marks=pytest.mark.xfail(strict=True, reason="the judge does not know 'get rid of'"),
    ),
    ("how long may I return an item?", ("45 days",), ("14 days",)),
    ("How can I pay?", ("credit card", "invoice", "cash"), ()),
    ("do you send parcels to other countries", ("Union",), ()),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="client")
async def give_client(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AsyncClient]:
    folder, store = tmp_path_factory.mktemp("traps"), tmp_path_factory.mktemp("store")
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    async with open_embedder("", quiet=True) as embedder:
        corpus = Corpus([folder], DocumentColumns())
        await build_corpus(corpus, BuildOptions(store=str(store), golden_queries=0), embedder)
        async with asking(store, embedder=embedder) as address, AsyncClient(address) as client:
            yield client


@pytest.mark.parametrize(("question", "must", "must_not"), ANSWERS)
async def test_an_answer_has_what_it_needs_and_nothing_of_its_neighbours(
    client: AsyncClient, question: str, must: tuple[str, ...], must_not: tuple[str, ...]
) -> None:
    answer = await client.ask(c.Question(text=question, refuse=False), timeout_s=60.0)
    assert answer.refusal is None and not answer.not_sure, answer
    assert all(one in answer.text for one in must), answer.text
    assert not any(one in answer.text for one in must_not), answer.text
    assert not any(one in answer.text for one in ("Prev", "Up ", "#", "===")), answer.text


@pytest.mark.parametrize(
    "question", ["what is the default of memory_limit?", "who painted the Mona Lisa?"]
)
async def test_what_the_documents_lack_is_not_answered(client: AsyncClient, question: str) -> None:
    answer = await client.ask(c.Question(text=question), timeout_s=60.0)
    assert answer.refusal is not None or answer.not_sure, answer.text
