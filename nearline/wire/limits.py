"""Limits of the fields of requests: services check them, and the OpenAPI document has them.

Converting millions of entries would occupy the event loop, so their entries are counted first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sized
from typing import Final, NamedTuple, Protocol, TypeVar

from nearline import contract as c
from nearline.errors import InvalidRequest
from nearline.vectors import MAX_DIM

_T_co = TypeVar("_T_co", covariant=True)


class _Entries(Sized, Iterable[_T_co], Protocol[_T_co]):
    pass


class Limit(NamedTuple):
    """Least and most of a number, of the entries of a list or map, or of the length of a text.

    Some texts are measured in bytes; a character has one or more. pattern: Of a text. Optional.
    """

    least: float = 0
    most: float = math.inf
    pattern: str = ""

    def __str__(self) -> str:
        return "..".join(f"{one:,.0f}" if one % 1 == 0 else f"{one:g}" for one in self[:2])


REQUIRED: Final = Limit(1)
COLLECTION: Final = Limit(1, 63, "[a-z0-9][a-z0-9_-]{0,62}")
IMPORT_ID: Final = Limit(1, 64, "[a-z0-9][a-z0-9_-]{0,63}")
JOB_ID: Final = Limit(1, c.MAX_JOB_ID, f"[A-Za-z0-9_-]{{1,{c.MAX_JOB_ID}}}")
TEXT: Final = Limit(1, c.MAX_QUERY_CHARACTERS)
BATCH: Final = Limit(1, c.MAX_BATCH)
# Of a batch, where some or all entries may be missing: a map by its ids, or one of its columns.
PART_OF_BATCH: Final = Limit(0, c.MAX_BATCH)
USER_ATTRIBUTES: Final = Limit(0, c.MAX_USER_ATTRIBUTES)
IMPORT_ROWS: Final = Limit(0, c.MAX_IMPORT_ROWS)
SHARE: Final = Limit(0, 1)
# Parts, states and other enum numbers in a field, which are few however often they repeat.
NUMBERS: Final = Limit(0, 256)

# By field: Message.field; of each entry of a list Message.field[]; of a part of a path, its name.
# Where 0 stands for a default, it is allowed.
LIMITS: Final[Mapping[str, Limit]] = {
    field: limit
    for limit, fields in (
        (COLLECTION, "collection"),
        (JOB_ID, "job_id"),
        (Limit(1, c.MAX_SESSION_ID), "session_id"),
        (Limit(0, c.MAX_SESSION_ID), "GenerateRequest.session_id"),
        (IMPORT_ID, "InteractionBatch.import_id"),
        (
            REQUIRED,
            "Boost.field DeleteItemsByFilterRequest.filter EmbedRequest.texts EmbedRequest.texts[] "
            "EntailRequest.hypotheses EntailRequest.hypotheses[] EntailRequest.premises "
            "EntailRequest.premises[] Facet.field GetItemsRequest.ids[] Grouping.field "
            "ItemIds.ids[] RerankRequest.query RerankRequest.texts RerankRequest.texts[] "
            "SearchRequest.query SourceFile.content",
        ),
        (
            Limit(1, c.MAX_ID_BYTES),
            "user_id DeleteItemsRequest.ids[] Interaction.item_id Item.id "
            "RecommendRequest.exclude_ids[] RecommendRequest.item_ids[] SourceFile.name",
        ),
        (
            Limit(0, c.MAX_ID_BYTES),
            "Interaction.list_id Interaction.session_id Interaction.user_id "
            "RecommendRequest.session_id RecommendRequest.user_id RecommendRequest.why_not_id "
            "SearchOptions.session_id SearchOptions.unit SearchOptions.user_id",
        ),
        (
            Limit(0, c.MAX_KEY_BYTES),
            "DeleteItemsRequest.idempotency_key RecordInteractionsRequest.idempotency_key "
            "UpsertItemsRequest.idempotency_key",
        ),
        (Limit(0, c.MAX_EVENT_ID_BYTES), "Interaction.event_id"),
        (Limit(0, c.MAX_KIND_BYTES), "Interaction.kind"),
        (Limit(0, c.MAX_CALLBACK_BYTES), "SubmitRequest.callback_id"),
        (Limit(0, c.MAX_TENANT_BYTES), "SubmitRequest.tenant"),
        (Limit(0, 4_096), "IngestSource.url"),
        (Limit(1, 256), "AttributeField.name"),
        (TEXT, "GenerateRequest.question Query.text Turn.question"),
        (Limit(0, c.MAX_QUERY_CHARACTERS), "Turn.answer Turn.condensed"),
        (Limit(1, c.MAX_TYPED_CHARACTERS), "SuggestRequest.text"),
        (Limit(0, 256 << 10), "SetPoliciesRequest.toml"),
        (
            BATCH,
            "DeleteDeadLettersRequest.letter_ids DeleteItemsRequest.ids GetItemsRequest.ids "
            "RecordInteractionsRequest.interactions RequeueDeadLettersRequest.letter_ids "
            "SearchBatchRequest.queries SubmitRequest.sources UpsertItemsRequest.items "
            "VerifyCitationRequest.citations",
        ),
        (
            PART_OF_BATCH,
            "DeleteItemsRequest.if_versions UpsertItemsRequest.as_of "
            "UpsertItemsRequest.if_versions",
        ),
        (Limit(1, c.MAX_EXAMPLES), "ItemIds.ids"),
        (Limit(0, c.MAX_EXAMPLES), "RecommendRequest.item_ids"),
        (Limit(0, c.MAX_EXCLUDED), "RecommendRequest.exclude_ids"),
        (Limit(0, c.MAX_FACETS), "CountItemsRequest.facets"),
        (Limit(0, c.MAX_HISTORY_TURNS), "GenerateRequest.history"),
        (Limit(0, c.MAX_BOOSTS), "SearchOptions.boosts"),
        (Limit(1, c.MAX_BOOST_VALUES), "BoostAnyOf.values"),
        (USER_ATTRIBUTES, "RecommendRequest.context SetUserRequest.attributes"),
        (Limit(0, 256), "CreateCollectionRequest.attributes"),
        (
            NUMBERS,
            "GetItemsRequest.payload ListItemsRequest.payload ListJobsRequest.states "
            "RecommendRequest.payload SearchOptions.payload",
        ),
        (Limit(0, MAX_DIM), "CreateCollectionRequest.dim"),
        (Limit(0, 64), "CreateCollectionRequest.shards"),
        (Limit(0, 10_000), "DeleteItemsByFilterRequest.limit"),
        (Limit(0, 1_000), "GetAliasesRequest.history Facet.limit"),
        (
            Limit(0, c.MAX_PAGE),
            "ListCollectionsRequest.page_size ListDeadLettersRequest.page_size "
            "ListItemsRequest.page_size ListJobsRequest.page_size ListResultsRequest.page_size "
            "ListSnapshotsRequest.page_size",
        ),
        (Limit(1, c.MAX_K), "SearchOptions.k"),
        (Limit(1, 4_096), "SearchOptions.ef_search"),
        (Limit(1, 65_536), "SearchOptions.nprobe"),
        (Limit(0, c.MAX_RERANKED), "SearchOptions.rerank"),
        (Limit(0, c.MAX_GROUP_SIZE), "Grouping.size"),
        (Limit(0, c.MAX_PASSAGE_CHARACTERS), "Highlighting.passage_chars"),
        (Limit(1, c.MAX_RECOMMENDED), "RecommendRequest.n"),
        (Limit(0, c.MAX_SUGGESTIONS), "SuggestRequest.limit"),
        (Limit(0, c.MAX_ANSWER_TOKENS), "GenerateRequest.max_tokens"),
        (Limit(0, c.MAX_EVIDENCE_DOCUMENTS), "GenerateRequest.documents"),
        (Limit(0, c.MAX_TEMPERATURE), "GenerateRequest.temperature"),
        (Limit(-c.MAX_BOOST_WEIGHT, c.MAX_BOOST_WEIGHT), "Boost.weight"),
        # The range in which binary32 has full precision.
        (Limit(1e-30, 1e30), "Interaction.weight"),
        (
            SHARE,
            "RecommendRequest.diversity RecommendRequest.popularity_debias "
            "RolloutLimits.recall_sample SearchOptions.dense_weight SearchOptions.diversity "
            "SearchOptions.min_should_match SearchOptions.personal",
        ),
        (Limit(1, 1e6), "RolloutLimits.away_s"),
        (Limit(1e-6, 0.5), "RolloutLimits.false_alarm"),
        (Limit(1, 100), "RolloutLimits.latency_ratio"),
        (Limit(0.001, 10), "RolloutLimits.min_effect"),
        (Limit(0, 0.999), "RolloutLimits.min_recall"),
    )
    for field in fields.split()
}


def bounded(entries: _Entries[_T_co], field: str, limit: Limit) -> Iterable[_T_co]:
    """Returns the entries of a repeated field or a map, counted before any of them is converted.

    The service checks the number again, for callers in the same process.

    Raises: InvalidRequest: their number is not allowed.
    """
    check_count(len(entries), field, limit)
    return entries


def check_count(count: int, field: str, limit: Limit, remedy: str = "") -> None:
    """Raises InvalidRequest, naming the field, unless its number of entries is allowed."""
    check_range(count, field, limit, remedy, " entries")


def check_range(value: float, field: str, limit: Limit, remedy: str = "", unit: str = "") -> None:
    """Raises InvalidRequest, naming the field, unless a number is allowed.

    Args:
        value, field, limit: The number, its path, and the limit.
        remedy: What helps. Optional.
        unit: What the field has so many of. Optional.
    """
    if not limit.least <= value <= limit.most:
        found = f"has {value:,}{unit}; {limit} are" if unit else f"is {value}; {limit} is"
        raise InvalidRequest(f"{field} {found} allowed{remedy and '; ' + remedy}", field=field)
