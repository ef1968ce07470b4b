"""`nearline build --synonyms`: searched over gRPC, and changed without the documents."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from nearline import contract as c
from nearline.clients import RetrievalClient
from nearline_cli.local.processes import RETRIEVAL_SERVICES, start_service
from nearline_cli.main import main

pytestmark = pytest.mark.service
TEXTS = ("television", "new york city", "radio", "big apple", "a lamp")


async def ids(client: RetrievalClient, text: str) -> list[str]:
    options = c.SearchOptions(k=5, mode=c.SearchMode.LEXICAL)
    return [hit.id for hit in (await client.search(c.Query(text=text), options)).hits]


async def test_synonyms_are_built_served_and_changed_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, rules, store = tmp_path / "items.jsonl", tmp_path / "rules.txt", tmp_path / "store"
    rows = [{"id": text, "text": text, "v": [1, n]} for n, text in enumerate(TEXTS)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules.write_text("# of a shop\ntv, television\nnyc => new york city, big apple\n")

    async def build(*words: str, code: int = 0) -> str:
        words = ("build", "--store", str(store), "--synonyms", str(rules), *words, "--json")
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, [*words])
        shown = capsys.readouterr()
        assert ended.value.code == code, shown.err
        return shown.err if code else shown.out

    words = ("--corpus", str(corpus), "--vector-column", "v", "--shards", "2")
    first = json.loads(await build(*words))
    process = await start_service(
        "retrieval",
        ("--store", str(store), "--alias-poll-s", "0.1"),
        ready_services=RETRIEVAL_SERVICES,
    )
    try:
        async with RetrievalClient(process.address) as client:
            assert await ids(client, "tv") == ["television"]
            assert sorted(await ids(client, "nyc")) == ["big apple", "new york city"]
            assert await ids(client, "wireless") == []
            rules.write_text("wireless => radio")
            second = json.loads(await build())
            assert second["documents"] == len(TEXTS) and second["embedded"] == 0
            assert second["snapshot_id"] != first["snapshot_id"]
            async with asyncio.timeout(30):
                while await ids(client, "wireless") != ["radio"]:
                    await asyncio.sleep(0.05)
            assert await ids(client, "tv") == []
    finally:
        await process.stop()
    assert "--shards cannot be used without a corpus" in await build("--shards", "3", code=2)
    rules.write_text("tv =>")
    assert "rules.txt, line 1: an entry has no word" in await build(*words, code=2)
