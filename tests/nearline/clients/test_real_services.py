"""The client of real services does the same on `nearline up` and on services of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nearline import Client, Interaction, Item, JobState, SourceFile, Verdict
from nearline.errors import InvalidRequest, NotFound
from tests.nearline_cli.conftest import ROOT, Up, command
from tests.redis_server import needs_redis

pytestmark = [pytest.mark.service, pytest.mark.long, pytest.mark.timeout(300), needs_redis]
ATTRIBUTES = {"price": "double", "brand": "string"}
ITEMS = [
    Item(id="mug", title="Mug", text="A mug of stoneware for tea.", attributes={"price": 9.5}),
    Item(id="pot", title="Teapot", text="A pot to make tea in.", attributes={"price": 30}),
    Item(id="lamp", title="Lamp", text="A lamp to read by at night.", attributes={"price": 45}),
]


@pytest.fixture(scope="module", params=["nearline up", "embedded"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "embedded":
        with Client.embedded(folder, attributes=ATTRIBUTES) as embedded:
            embedded.upsert(ITEMS)
            yield embedded
        return
    line = command("up", "--store", str(folder), "--port", "0", "--json", "--no-http")
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        up = Up(process)
        with Client(up.address) as connected:
            connected.collections.create("default", attributes=ATTRIBUTES)
            connected.upsert(ITEMS)
            yield connected
        process.terminate()
        process.wait(30)
    psutil.wait_procs(up.children, 30)


def test_reads_see_writes_at_once(client: Client) -> None:
    seen = 0
    for number in range(20):
        text = f"the {number}th note about gardening"
        client.upsert([Item(id=f"note-{number}", title="Note", text=text)])
        hits = client.search(text, 1, mode="lexical").hits
        seen += [hit.id for hit in hits] == [f"note-{number}"]
    assert seen == 20
    client.delete([f"note-{number}" for number in range(20)])
    assert client.count().count == len(ITEMS)


def test_searches_take_filters_and_return_titles_and_texts(client: Client) -> None:
    for condition in ("price < 40", {"field": "price", "lt": 40}):
        hits = client.search("something for tea", filter=condition).hits
        assert {hit.id for hit in hits} == {"mug", "pot"}
        assert all(hit.title and hit.text for hit in hits)
    [vector] = client.embed(["something for tea"], "query").vectors
    assert client.search(vector, 2).hits[0].id in {"mug", "pot"}
    with pytest.raises(InvalidRequest, match="k is 0"):
        client.search("tea", 0)
    assert client.get(["mug", "no"]).items[0].attributes == {"price": 9.5}
    assert [item.id for item in client.items("price > 20")] == ["lamp", "pot"]


def test_lists_follow_what_people_do(client: Client) -> None:
    listed = client.recommend(item_ids=["mug"], n=2).recommendations
    assert {one.hit.id for one in listed} == {"pot", "lamp"} and listed[0].hit.title
    client.record([Interaction(user_id="ann", item_id="mug", kind="purchase")])
    assert [one.item_id for one in client.user("ann").interactions] == ["mug"]
    assert "mug" not in {one.hit.id for one in client.recommend("ann").recommendations}
    assert client.delete_user("ann").interactions == 1
    assert client.user("ann").interactions == []


def test_answers_cite_what_was_written_and_are_checked_later(client: Client) -> None:
    client.upsert([Item(id="care", title="Care", text="Wash the mug by hand. Never boil it.")])
    answer = client.ask("how do I wash the mug?")
    assert answer.refusal is None and "Wash the mug by hand." in answer.text
    assert "care" in {one.document_id for one in answer.citations}
    client.delete(["care"])
    checks = client.verify(answer.citations).checks
    verdicts = {
        one.document_id: check.verdict for one, check in zip(answer.citations, checks, strict=True)
    }
    assert verdicts["care"] is Verdict.GONE


def test_tables_and_files_are_stored_and_read(client: Client) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"id": range(300), "text": [f"row {n}" for n in range(300)]})
    reply = client.upsert_frame(table, progress=False)
    assert client.count().count == 300 + len(ITEMS) and not reply.rejections
    client.delete(range(300))
    job = client.submit([SourceFile("deck.md", b"# Deck\n\nA deck of oak.")])
    assert client.wait(job.job_id, timeout_s=60, progress=False).state is JobState.SUCCEEDED
    found = client.search("deck of oak", 1)
    assert found.hits[0].id == "deck.md" and found.to_arrow().num_rows == 1
    client.delete(["deck.md"])


def test_collections_come_and_go(client: Client) -> None:
    client.collections.create("vectors", dim=2)
    client.upsert([Item(id="a", vector=[1, 0.5])], collection="vectors")
    assert client.search([1, 0.5], collection="vectors").hits[0].id == "a"
    assert {one.name for one in client.collections.list()} == {"default", "vectors"}
    client.collections.drop("vectors")
    with pytest.raises(NotFound):
        client.collections.get("vectors")
    assert client.status().collections


def in_process(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


OPEN = """
import sys
from nearline import Client, Item

client = Client.embedded(sys.argv[1])
client.upsert([Item(id="a", title="T", text="x")])
print("written", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_shared_in_a_process(client: Client) -> None:
    services = client._client._local
    if services is None:
        pytest.skip("its services belong to nobody")
    with Client.embedded(str(services.folder)) as second:
        assert second.get(["mug"]).items[0].title == "Mug"
    # Its services go on for the first.
    assert client.get(["mug"]).items[0].title == "Mug"


def test_services_end_with_a_process_that_is_killed_and_writes_stay(tmp_path: Path) -> None:
    program = in_process(OPEN, tmp_path)
    try:
        assert program.stdout is not None and program.stdout.readline() == "written\n"
        family = psutil.Process(program.pid).children(recursive=True)
        assert len(family) >= 5
        program.send_signal(signal.SIGKILL)
        assert psutil.wait_procs(family, 30)[1] == []
    finally:
        program.kill()
        program.communicate(timeout=30)
    with Client.embedded(tmp_path) as again:
        assert again.get(["a"]).items[0].title == "T"
