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
ROOT = Path(__file__).parents[2]
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
    "--exclude-checks=positive_data_acceptance,negative_data_rejection": "no schema says which "
    "filters parse, which ids there are, or which dimension the vectors of a collection have; "
    "openapi_checks.wrong_requests_are_refused takes the place of the second",
}
# Where a path names a collection, it is one that has items; creating and dropping have their own.
CONFIG = """
[parameters]
"path.collection" = "shop"
[[operations]]
include-operation-id = ["CreateCollection", "DropCollection", "SetCollectionName"]
parameters = { "path.collection" = "other" }
"""


@pytest.fixture(name="document")
def give_document(gateway: str) -> Any:
    return httpx2.get(f"{gateway}/openapi.json").json()


@pytest.fixture(scope="module", name="shop")
def give_shop(client: Client) -> None:
    client.collections.create("shop", attributes={"price": "double"})
    item = Item(id="0", text="w1 w2", attributes={"price": 9.5})
    client.upsert([item], collection="shop")


def _adapted(document: Any) -> Any:
    """Returns the document with the schema of each line in place of that of the text."""
    for operation in (one for path in document["paths"].values() for one in path.values()):
        for body in operation.get("requestBody", {"content": {}})["content"].values():
            body["schema"] = body.pop("x-itemSchema", body["schema"])
        for reply in operation["responses"].values():
            # Schemathesis takes the schema for that of an event.
            reply["content"].get("text/event-stream", {}).pop("schema", None)
    schemas = document["components"]["schemas"]
    # Workers check the items of a job, which is accepted before.
    schemas["IngestSource"]["properties"]["item"] = {"type": "object"}
    # What no schema says, and what would hide what else is wrong: which filters parse, which
    # options go together, that an item has a text and an interaction somebody who had it.
    schemas["Filter"] = {"enum": ["price < 80", "NOT price > 80"]}
    for name in ("boosts", "grouping", "min_should_match", "personal", "snapshot_id"):
        del schemas["SearchOptions"]["properties"][name]
    # The embedding service of the tests has no store with rerankers.
    del schemas["RerankRequest"]["properties"]["snapshot"]
    # Replies have the other forms, too.
    item, event = (json.loads(json.dumps(schemas[one])) for one in ("Item", "Interaction"))
    del item["properties"]["vector"], event["properties"]["position"]
    item["required"] += ["text"]
    item["properties"]["text"] |= {"minLength": 1}
    schemas["UpsertItemsRequest"]["properties"]["items"]["items"] = item
    event["anyOf"] = [
        {"required": [one], "properties": {one: {"minLength": 1}}}
        for one in ("user_id", "session_id")
    ]
    schemas["RecordInteractionsRequest"]["properties"]["interactions"]["items"] = event
    schemas["Query"]["properties"]["vector"] |= {"minItems": 4, "maxItems": 4}
    # The same as exactly one property, in words from which Schemathesis makes right ones.
    alone = {"type": "object", "additionalProperties": False}
    schemas["Query"] = {
        "anyOf": [
            alone | {"properties": {name: one}, "required": [name]}
            for name, one in schemas["Query"]["properties"].items()
        ]
    }
    return document


def _report(gateway: str, document: Any, folder: Path, *options: str) -> Any:
    """Returns what Schemathesis reports."""
    (folder / "openapi.json").write_text(json.dumps(_adapted(document)))
    (folder / "schemathesis.toml").write_text(CONFIG)
    words = ["run", "openapi.json", "--url", gateway, "--report-json-path", "report.json"]
    words += ["--generation-database", "none", "--continue-on-failure", *EXCLUDED, *options]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("st")), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.integrations.openapi_checks",
            "PYTHONPATH": str(ROOT),
        },
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
    assert found["test_cases"]["generated"] >= 500
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
        gateway, document, tmp_path, "--include-operation-id", operation, "--phases", "coverage"
    )
    assert problem in found["text"]
    assert found["exit_code"] == 1
