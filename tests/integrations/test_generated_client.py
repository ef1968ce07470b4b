"""A client generated from the gateway's OpenAPI document writes, searches and asks."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nearline import Client
from tests.redis_server import needs_redis

GENERATOR = shutil.which(
    "openapi-python-client", path=f"{sys.prefix}/generator/bin{os.pathsep}{os.environ['PATH']}"
)
pytestmark = [
    pytest.mark.service,
    needs_redis,
    pytest.mark.skipif(
        GENERATOR is None, reason="openapi-python-client is not installed: make test-integrations"
    ),
]


@pytest.fixture(scope="module", name="generated")
def give_generated(gateway: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Returns a function that imports a module of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_bytes(httpx2.get(f"{gateway}/openapi.json").content)
    command = [str(GENERATOR), "generate", "--path", str(document), "--meta", "none"]
    done = subprocess.run(
        [*command, "--output-path", str(folder / "nearline_http")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"nearline_http.{name}")
    sys.path.remove(str(folder))


def test_it_writes_searches_and_asks(
    gateway: str, generated: Any, client: Client, collection: str
) -> None:
    pytest.importorskip("httpx", reason="httpx is not installed: make test-integrations")
    client.collections.create(collection, attributes={"price": "double"})
    models, api = generated("models"), generated("client").Client(gateway)
    item = models.Item.from_dict(
        {"id": "mug", "text": "A stoneware mug.", "attributes": {"price": 9.5}}
    )
    written = generated("api.retrieval.upsert_items").sync(
        collection, client=api, body=models.UpsertItemsRequest(items=[item])
    )
    assert [one.outcome.value for one in written.results] == ["applied"]
    request = models.SearchRequest.from_dict(
        {
            "query": {"text": "stoneware"},
            "options": {
                "filter": "price < 20",
                "min_watermark": written.watermark,
                "payload": ["text"],
            },
        }
    )
    found = generated("api.retrieval.search").sync(collection, client=api, body=request)
    assert [(one.id, one.text) for one in found.result.hits] == [("mug", item.text)]
    question = models.GenerateRequest(question="stoneware mug", min_watermark=written.watermark)
    said = generated("api.generation.generate").sync(collection, client=api, body=question)
    assert "event: done" in said or '"done"' in said
    missing = generated("api.retrieval.search").sync("missing", client=api, body=request)
    assert isinstance(missing, models.Problem) and missing.status == 404
    api.get_httpx_client().close()


def test_nothing_but_uploads_of_many_lines_is_left_out(generated: Any) -> None:
    folder = Path(generated("api").__path__[0])
    names = {path.stem for path in folder.glob("*/*.py")} - {"__init__"}
    assert {"search", "upsert_items", "generate", "create_collection", "submit"} <= names
