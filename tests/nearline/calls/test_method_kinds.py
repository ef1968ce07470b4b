"""Which calls are slow after how long, whoever serves them."""

from __future__ import annotations

import pytest

from nearline.access.rights import METHODS, Right
from nearline.calls.method_kinds import is_limited, slow_limit_ms

SEARCH_MS, ANSWER_MS = 500.0, 10_000.0


@pytest.mark.parametrize(
    ("method", "streams_in", "limit_ms"),
    [
        ("RetrievalService/Search", False, SEARCH_MS),
        ("RetrievalService/DeleteItems", False, SEARCH_MS),
        ("RetrievalService/UpsertItems", False, 0.0),
        ("RetrievalService/ListItems", False, 0.0),
        ("RetrievalService/UpsertItemsStream", True, 0.0),
        ("GenerationService/Generate", False, ANSWER_MS),
        ("GenerationService/VerifyCitation", False, ANSWER_MS),
        ("IngestService/Submit", False, 0.0),
        ("IngestService/GetJob", False, SEARCH_MS),
        ("IngestService/WatchJob", False, 0.0),
        ("EmbeddingService/Embed", False, SEARCH_MS),
        ("EmbeddingService/EmbedStream", True, 0.0),
        ("EmbeddingService/GetInfo", False, 0.0),
        ("AdminService/PromoteSnapshot", False, 0.0),
        ("AdminService/GetAliases", False, 0.0),
    ],
)
def test_only_a_call_that_somebody_waits_for_is_slow(
    method: str, streams_in: bool, limit_ms: float
) -> None:
    service, _, name = f"nearline.v1.{method}".partition("/")
    found = slow_limit_ms(
        service, name, streams_in=streams_in, search_ms=SEARCH_MS, answer_ms=ANSWER_MS
    )
    assert found == limit_ms


def test_changes_of_operators_and_questions_of_other_services_are_never_refused_for_load() -> None:
    admin = METHODS["nearline.v1.AdminService"]
    changes = {name for name, row in admin.items() if row.right is Right.ADMIN}
    free = {name for name in admin if not is_limited("nearline.v1.AdminService", name)}
    assert free == changes | {"GetServingStatus"}
    assert not is_limited("nearline.v1.EmbeddingService", "GetInfo")
    assert is_limited("nearline.v1.RetrievalService", "Search")
