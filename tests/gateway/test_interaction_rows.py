"""Imports over HTTP: an interaction per line of JSON or CSV."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from nearline.v1 import retrieval_pb2
from tests.gateway.gateways import Behind, gateway

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]
PATH = "/v1/collections/shop/interactions/import"
Served = tuple[httpx2.AsyncClient, Behind]
# Rows of a batch that a service takes.
MOST = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="served")
async def give_served() -> AsyncIterator[Served]:
    async with gateway(max_body_bytes=4_096) as (client, behind):
        behind.answers["ImportInteractions"] = lambda last: (
            retrieval_pb2.ImportInteractionsResponse(rows=3, recorded=2, duplicates=1)
        )
        yield client, behind


async def send(served: Served, body: bytes, kind: str = "application/x-ndjson") -> httpx2.Response:
    client, behind = served
    behind.seen.clear()
    where = {"import_id": "past", "first_row": "200000"}
    return await client.post(PATH, params=where, content=body, headers={"content-type": kind})


def columns(served: Served) -> list[tuple[str, str, int, str, float]]:
    found = []
    for _, message in served[1].seen:
        batch = message.request
        assert (batch.collection, batch.import_id, batch.first_row) == ("shop", "past", 200_000)
        found += list(
            zip(
                batch.user_ids, batch.item_ids, batch.times_us, batch.kinds, batch.weights,
                strict=True,
            )
        )  # fmt: skip
    return found


async def test_a_line_of_json_is_an_interaction(served: Served) -> None:
    body = b"""{"user_id": "u1", "item_id": "a", "time": "2024-05-01T12:00:00.5+02:00"}

{"user_id": "u2", "item_id": "b", "time": 1714557600, "kind": "cart", "weight": 2.5}
{"user_id": "u2", "item_id": "b", "time": 1714557600123, "kind": null, "weight": null}"""
    found = await send(served, body)
    assert found.json() == {"rows": 3, "recorded": 2, "duplicates": 1}
    assert columns(served) == [
        ("u1", "a", 1_714_557_600_500_000, "", 0.0),
        ("u2", "b", 1_714_557_600_000_000, "cart", 2.5),
        ("u2", "b", 1_714_557_600_123_000, "", 0.0),
    ]


async def test_a_line_of_csv_is_an_interaction(served: Served) -> None:
    body = 'time,weight,item_id,user_id\r\n2024-05-01,,"ä,b",7\r\n\r\n1714557600,0.5,c,8\r\n'
    found = await send(served, body.encode(), "text/csv; charset=utf-8")
    assert found.status_code == 200, found.text
    assert columns(served) == [
        ("7", "ä,b", 1_714_521_600_000_000, "", 0.0),
        ("8", "c", 1_714_557_600_000_000, "", 0.5),
    ]


@pytest.mark.parametrize("name", ["user_id", "item_id", "kind", "weight", "time"])
@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}, False, True])
async def test_a_value_of_another_type_is_refused(served: Served, name: str, value: object) -> None:
    row = {"user_id": "u", "item_id": "i", "time": 7, name: value}
    found = await send(served, json.dumps(row).encode())
    assert found.status_code == 400 and "line 1" in found.json()["detail"], found.text


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b"user_id,item_id,time\nu,i,7\n"),
        ("application/x-ndjson", b'{"user_id": "u", "item_id": "i", "time": 7}\n'),
    ],
)
async def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_first_name(
    served: Served, content_type: str, body: bytes
) -> None:
    found = await send(served, b"\xef\xbb\xbf" + body, content_type)
    assert found.status_code == 200, found.text
    assert columns(served) == [("u", "i", 7_000_000, "", 0.0)]


async def test_an_empty_body_asks_how_many_are_stored(served: Served) -> None:
    assert (await send(served, b"")).json()["rows"] == 3
    assert columns(served) == [] and len(served[1].seen) == 1
    assert (await send(served, b"user_id,item_id,time\n", "text/csv")).status_code == 200


async def test_lines_travel_in_batches_that_a_service_takes(served: Served) -> None:
    line = b'{"user_id": "u", "item_id": "i", "time": 0}\n'
    assert (await send(served, line * (2 * MOST + 1))).status_code == 200
    assert [len(one.request.user_ids) for _, one in served[1].seen] == [MOST, MOST, 1]
    # Long ones in smaller ones.
    line = b'{"user_id": "%s", "item_id": "i", "time": 0}\n' % (b"u" * 4_000)
    assert (await send(served, line * 1_000)).status_code == 200
    assert [len(one.request.user_ids) for _, one in served[1].seen] == [519, 481]


GOOD = '{"user_id": "u", "item_id": "i", "time": 0}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "it is not an object"),
        ("{", "is not JSON"),
        ('{"item_id": "i", "time": 0}', "user_id is missing"),
        ('{"user_id": "u", "item_id": "", "time": 0}', "item_id is missing"),
        ('{"user_id": "u", "item_id": "i"}', "time is missing"),
        ('{"user_id": 7, "item_id": "i", "time": 0}', "user_id is not a string"),
        ('{"user_id": "u", "item_id": "i", "time": "soon"}', "send the time in ISO 8601"),
        ('{"user_id": "u", "item_id": "i", "time": "nan"}', "the time is 'nan'"),
        ('{"user_id": "u", "item_id": "i", "time": 1e300}', "the time is 1e+300"),
        ('{"user_id": "u", "item_id": "i", "time": true}', "the time is True"),
        ('{"user_id": "u", "item_id": "i", "time": [0]}', "send the time in ISO 8601"),
        ('{"user_id": "u", "item_id": "i", "time": 0, "weight": "x"}', "the weight as a number"),
        ('{"user_id": "u", "item_id": "i", "time": 0, "event_id": "e"}', "no field 'event_id'"),
        (GOOD.replace("u", "\udcff"), "is not JSON"),
        (GOOD.replace('"u"', f'"{"u" * 5_000}"'), "4,096 are allowed"),
    ],
)
async def test_a_wrong_line_is_named(served: Served, line: str, told: str) -> None:
    body = f"{GOOD}\n{line}\n".encode(errors="surrogateescape")
    found = await send(served, body)
    assert found.status_code == (413 if "allowed" in told else 400)
    assert "line 2" in found.json()["detail"] and told in found.json()["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("user_id,item_id\n", "line 1 has the columns user_id, item_id"),
        ("user_id,item_id,time,x\n", "optionally kind and weight"),
        ("user_id,item_id,time,time\n", "each once"),
        ("user_id,item_id,time\nu,i\n", "line 2: it has 2 cells, and line 1 has 3"),
        ('user_id,item_id,time\n"u,i,0\n', "line 2: it is not a line of CSV"),
        ("user_id,item_id,time\nu,,0\n", "line 2: item_id is missing"),
        ("user_id,item_id,time\n\udcff,i,0\n", "line 2: it is not a line of CSV in UTF-8"),
    ],
)
async def test_a_wrong_line_of_csv_is_named(served: Served, body: str, told: str) -> None:
    found = await send(served, body.encode(errors="surrogateescape"), "text/csv")
    assert found.status_code == 400 and told in found.json()["detail"]
