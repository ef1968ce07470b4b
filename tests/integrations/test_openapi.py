"""The gateway answers as its OpenAPI document says; Schemathesis asks each operation."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from nearline import Client, Item
from tests.redis_server import needs_redis

NIGHTLY = bool(os.environ.get("NEARLINE_TEST_NIGHTLY"))
MAX_S = 600 if NIGHTLY else 60
pytestmark = [
    pytest.mark.service,
    needs_redis,
    pytest.mark.timeout(MAX_S + 120),
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None,
        reason="schemathesis is not installed: make test-integrations",
    ),
]
# Operations and checks that are left out, each with its reason.
EXCLUDED = {
    "--exclude-operation-id=Entail": "no service here has a model of entailment: 501 is the answer",
    "--exclude-checks=positive_data_acceptance": "no schema says which filters parse, which ids "
    "there are, or which dimension the vectors of a collection have",
}
# Where a path names a collection, it is one that has items; creating and dropping have their own.
CONFIG = """
[parameters]
"path.collection" = "shop"
[[operations]]
include-operation-id = ["CreateCollection", "DropCollection", "SetCollectionName"]
parameters = { "path.collection" = "other" }
"""
# A line of JSON for a body of lines.
HOOKS = """
import json
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def line(context, value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()
"""


@pytest.fixture(name="document")
def give_document(gateway: str) -> Any:
    return httpx2.get(f"{gateway}/openapi.json").json()


@pytest.fixture(scope="module", name="shop")
def give_shop(client: Client) -> None:
    client.collections.create("shop", attributes={"price": "double"})
    item = Item(id="0", text="w1 w2", attributes={"price": 9.5})
    client.upsert([item], collection="shop")


def _allow_more(schema: Any) -> Any:
    """Returns a schema of requests that also has what readers take, but writers need not know."""
    if "properties" in schema:
        inner = {name: _or_unset(one) for name, one in schema["properties"].items()}
        return schema | {"properties": inner}
    return schema | {"items": _or_text(schema["items"])} if "items" in schema else schema


def _or_unset(schema: Any) -> Any:
    # null is unset.
    return {"anyOf": [_or_text(_allow_more(schema)), {"type": "null"}]}


def _or_text(schema: Any) -> Any:
    # JavaScript has no integers of 64 bits, and a query has only texts.
    is_text = schema.get("type") in ("integer", "number", "boolean")
    return {"anyOf": [schema, {"type": "string"}]} if is_text else schema


def _for_requests(schema: Any) -> Any:
    text = json.dumps(schema)
    return json.loads(text.replace("#/components/schemas/", "#/components/schemas/Sent"))


def _adapted(document: Any) -> Any:
    """Returns the document with schemas of requests apart, and of each line in place of a text."""
    schemas = document["components"]["schemas"]
    schemas |= {f"Sent{name}": _for_requests(_allow_more(one)) for name, one in schemas.items()}
    # Workers check the items of a job, which is accepted before.
    schemas["SentIngestSource"]["properties"]["item"] = {"type": ["object", "null"]}
    for operation in (one for path in document["paths"].values() for one in path.values()):
        for body in operation.get("requestBody", {"content": {}})["content"].values():
            body["schema"] = _for_requests(body.pop("x-itemSchema", body["schema"]))
        for reply in operation["responses"].values():
            # Schemathesis takes the schema for that of an event.
            reply["content"].get("text/event-stream", {}).pop("schema", None)
    return document


def _report(gateway: str, document: Any, folder: Path, *options: str) -> Any:
    """Returns what Schemathesis reports."""
    (folder / "openapi.json").write_text(json.dumps(_adapted(document)))
    (folder / "schemathesis.toml").write_text(CONFIG)
    (folder / "hooks_of_test.py").write_text(HOOKS)
    words = ["run", "openapi.json", "--url", gateway, "--report-json-path", "report.json"]
    words += ["--generation-database", "none", "--continue-on-failure", *EXCLUDED, *options]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("st")), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks_of_test", "PYTHONPATH": str(folder)},
    )
    assert (folder / "report.json").exists(), done.stdout + done.stderr
    found = json.loads((folder / "report.json").read_text())
    assert not found["errors"], found["errors"]
    return found | {"text": done.stdout}


def test_the_document_is_valid(document: Any) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.OpenAPIV31SpecValidator(document).validate()
    document["paths"]["/v1/status"]["get"]["responses"]["200"].pop("description")
    with pytest.raises(Exception, match="description"):
        validator.OpenAPIV31SpecValidator(document).validate()


def test_every_operation_answers_as_it_says(
    gateway: str, document: Any, shop: None, tmp_path: Path
) -> None:
    found = _report(gateway, document, tmp_path, "--max-time", str(MAX_S))
    assert found["failures"] == [], found["text"]
    assert found["operations"]["tested"] >= 50
    assert found["test_cases"]["generated"] >= 1_000
    assert {found["phases"][one]["status"] for one in ("coverage", "fuzzing", "stateful")} == {
        "success"
    }


@pytest.mark.parametrize(
    ("operation", "place", "wrong", "problem"),
    [
        ("CountItems", "CountItemsResponse.count", {"type": "string"}, "violates schema"),
        ("Suggest", "SuggestRequest.limit", {"type": "integer", "maximum": 5}, "request accepted"),
    ],
)
def test_a_wrong_schema_is_found(
    gateway: str,
    document: Any,
    shop: None,
    tmp_path: Path,
    operation: str,
    place: str,
    wrong: Any,
    problem: str,
) -> None:
    message, name = place.split(".")
    document["components"]["schemas"][message]["properties"][name] = wrong
    found = _report(
        gateway, document, tmp_path, "--include-operation-id", operation, "--max-time", "10"
    )
    assert problem in found["text"]
    assert found["exit_code"] == 1
