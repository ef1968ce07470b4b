"""Replies of the retrieval service: contract records to protobuf and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nearline import contract as c
from nearline.v1 import retrieval_pb2, types_pb2
from nearline.vectors import pack, unpack
from nearline.wire.enums import (
    ARM_OF,
    ARMS,
    IGNORED,
    IGNORED_OF,
    SOURCE_OF,
    SOURCES,
    STRATEGIES,
    STRATEGY_OF,
    lookup,
)
from nearline.wire.highlights import (
    highlights_from_proto,
    highlights_to_proto,
    spans_from_proto,
    spans_to_proto,
)
from nearline.wire.items import item_from_proto, item_to_proto
from nearline.wire.raw_hits import RawHits
from nearline.wire.values import (
    attributes_from_proto,
    scalar_from_proto,
    seconds,
    set_attributes,
    set_duration,
    value_to_proto,
)


def fill_hit(target: retrieval_pb2.Hit, hit: c.Hit) -> None:
    """Fills the message of a hit."""
    target.id, target.score, target.chunk = hit.id, hit.score, hit.chunk
    target.start, target.end = hit.start, hit.end
    _fill_payload(target, hit)


def _fill_payload(message: retrieval_pb2.Hit, hit: c.Hit) -> None:
    if hit.title is not None:
        message.title = hit.title
    if hit.text is not None:
        message.text = hit.text
    if hit.attributes is not None:
        set_attributes(message, hit.attributes)
    if hit.vector is not None:
        message.vector.CopyFrom(pack(hit.vector))
    if hit.explanation is not None:
        message.explanation.CopyFrom(
            retrieval_pb2.Explanation(
                dense_score=hit.explanation.dense_score,
                lexical_score=hit.explanation.lexical_score,
                shard=hit.explanation.shard,
                dense_rank=hit.explanation.dense_rank,
                lexical_rank=hit.explanation.lexical_rank,
                title_level=hit.explanation.title_level,
                boosts=hit.explanation.boosts,
            )
        )
    if hit.group is not None:
        message.group.CopyFrom(value_to_proto(hit.group))
    if hit.highlights is not None:
        message.highlights.CopyFrom(highlights_to_proto(hit.highlights))
    if hit.section:
        message.section.extend(hit.section)
    if hit.reasons:
        message.reasons.extend(hit.reasons)


def _fill_hits(target: retrieval_pb2.HitList, result: c.HitList) -> None:
    add = target.hits.add
    for hit in result.hits:
        message = add(id=hit.id, score=hit.score, chunk=hit.chunk, start=hit.start, end=hit.end)
        _fill_payload(message, hit)
    for ignored in result.ignored_ids:
        target.ignored_ids.add(id=ignored.id, reason=IGNORED[ignored.reason])
    target.plans.extend(map(plan_to_proto, result.plans))
    target.language = result.language
    for term in result.terms:
        target.terms.add(word=term.word, chunks=term.chunks, idf=term.idf)


def _hits_from_proto(message: retrieval_pb2.HitList) -> c.HitList:
    return c.HitList(
        hits=[hit_from_proto(hit) for hit in message.hits],
        ignored_ids=ignored_from_proto(message.ignored_ids),
        plans=[plan_from_proto(plan) for plan in message.plans],
        terms=[c.Term(term.word, term.chunks, term.idf) for term in message.terms],
        language=message.language,
    )


def plan_to_proto(plan: c.FilterPlan) -> retrieval_pb2.FilterPlan:
    """Returns the message of a plan."""
    return retrieval_pb2.FilterPlan(
        shard=plan.shard,
        strategy=STRATEGIES[plan.strategy],
        matches=plan.matches,
        chunks=plan.chunks,
        ef_search=plan.ef_search,
        reason=plan.reason,
    )


def plan_from_proto(plan: retrieval_pb2.FilterPlan) -> c.FilterPlan:
    """Returns the plan of a message."""
    return c.FilterPlan(
        shard=plan.shard,
        strategy=lookup(STRATEGY_OF, plan.strategy, "plan.strategy"),
        matches=plan.matches,
        chunks=plan.chunks,
        ef_search=plan.ef_search,
        reason=plan.reason,
    )


def hit_from_proto(hit: retrieval_pb2.Hit) -> c.Hit:
    """Returns the hit of a message."""
    explanation = None
    if hit.HasField("explanation"):
        e = hit.explanation
        explanation = c.Explanation(
            dense_score=e.dense_score if e.HasField("dense_score") else None,
            lexical_score=e.lexical_score if e.HasField("lexical_score") else None,
            shard=e.shard,
            dense_rank=e.dense_rank if e.HasField("dense_rank") else None,
            lexical_rank=e.lexical_rank if e.HasField("lexical_rank") else None,
            title_level=e.title_level,
            boosts=tuple(e.boosts),
        )
    return c.Hit(
        id=hit.id,
        score=hit.score,
        chunk=hit.chunk,
        start=hit.start,
        end=hit.end,
        title=hit.title if hit.HasField("title") else None,
        text=hit.text if hit.HasField("text") else None,
        attributes=attributes_from_proto(hit.attributes) if hit.attributes else None,
        vector=unpack(hit.vector)[0] if hit.HasField("vector") else None,
        explanation=explanation,
        group=scalar_from_proto(hit.group) if hit.HasField("group") else None,
        highlights=highlights_from_proto(hit.highlights) if hit.HasField("highlights") else None,
        section=tuple(hit.section),
        reasons=tuple(hit.reasons),
    )


def ignored_from_proto(ignored: Iterable[retrieval_pb2.IgnoredId]) -> list[c.IgnoredId]:
    """Returns the ignored ids."""
    return [c.IgnoredId(i.id, lookup(IGNORED_OF, i.reason, "ignored_ids.reason")) for i in ignored]


def fill_served_by(target: types_pb2.ServedBy, served_by: c.ServedBy) -> None:
    """Fills the message of the source of an answer."""
    target.source = SOURCES[served_by.source]
    target.rung, target.reason = served_by.rung, served_by.reason


def served_by_from_proto(message: types_pb2.ServedBy) -> c.ServedBy:
    """Returns the source of an answer."""
    return c.ServedBy(
        source=lookup(SOURCE_OF, message.source, "served_by.source"),
        rung=message.rung,
        reason=message.reason,
    )


def fill_info(target: types_pb2.ReplyInfo, info: c.ReplyInfo) -> None:
    """Fills the message of reply info."""
    target.epoch = info.epoch
    target.snapshot_id = info.snapshot_id
    target.fingerprint = info.fingerprint
    target.watermark = info.watermark
    target.list_id = info.list_id
    coverage = target.coverage
    coverage.shards_answered = info.coverage.shards_answered
    coverage.shards_total = info.coverage.shards_total
    if info.coverage.missing_shards:
        coverage.missing_shards.extend(info.coverage.missing_shards)
    fill_served_by(target.served_by, info.served_by)
    if info.arm is not None:
        target.arm = ARMS[info.arm]
    timings = target.timings
    for stage, spent_s in (
        (timings.embed, info.embed_s),
        (timings.search, info.search_s),
        (timings.total, info.total_s),
    ):
        if spent_s is not None:
            set_duration(stage, spent_s)
    if info.cost is not None:
        target.cost.CopyFrom(cost_to_proto(info.cost))


def cost_to_proto(cost: c.SearchCost) -> types_pb2.SearchCost:
    """Returns the message of the cost of a search."""
    message = types_pb2.SearchCost(comparisons=cost.comparisons, gpu=cost.gpu)
    set_duration(message.compute, cost.compute_s)
    return message


def cost_from_proto(message: types_pb2.SearchCost) -> c.SearchCost:
    """Returns the cost of a search."""
    return c.SearchCost(
        comparisons=message.comparisons, compute_s=seconds(message.compute), gpu=message.gpu
    )


def info_from_proto(info: types_pb2.ReplyInfo) -> c.ReplyInfo:
    """Returns the reply info of a message."""
    times = info.timings
    return c.ReplyInfo(
        epoch=info.epoch,
        snapshot_id=info.snapshot_id,
        fingerprint=info.fingerprint,
        watermark=info.watermark,
        list_id=info.list_id,
        coverage=c.Coverage(
            shards_answered=info.coverage.shards_answered,
            shards_total=info.coverage.shards_total,
            missing_shards=tuple(info.coverage.missing_shards),
        ),
        served_by=served_by_from_proto(info.served_by),
        embed_s=seconds(times.embed) if times.HasField("embed") else None,
        search_s=seconds(times.search) if times.HasField("search") else None,
        total_s=seconds(times.total) if times.HasField("total") else None,
        arm=lookup(ARM_OF, info.arm, "info.arm") if info.arm else None,
        cost=cost_from_proto(info.cost) if info.HasField("cost") else None,
    )


def search_response(reply: c.SearchReply) -> retrieval_pb2.SearchResponse:
    """Returns the message of a reply to a single search."""
    message = retrieval_pb2.SearchResponse()
    hits = reply.results[0].hits
    if isinstance(hits, RawHits):
        message.MergeFromString(b"".join(hits.messages))
    else:
        _fill_hits(message.result, reply.results[0])
    fill_info(message.info, reply.info)
    if reply.next_page_token:
        message.next_page_token = reply.next_page_token
    return message


def hit_to_bytes(hit: c.Hit) -> bytes:
    """Encodes a hit as a SearchResponse with nothing else."""
    message = retrieval_pb2.SearchResponse()
    fill_hit(message.result.hits.add(), hit)
    return message.SerializeToString()


def lazy_hits(messages: Sequence[bytes]) -> RawHits[c.Hit]:
    """Returns hits that are decoded on access."""
    return RawHits(
        messages,
        lambda one: hit_from_proto(retrieval_pb2.SearchResponse.FromString(one).result.hits[0]),
    )


def search_reply(message: retrieval_pb2.SearchResponse) -> c.SearchReply:
    """Returns the reply of a single search."""
    return c.SearchReply(
        results=[_hits_from_proto(message.result)],
        info=info_from_proto(message.info),
        next_page_token=message.next_page_token,
    )


def batch_response(reply: c.SearchReply) -> retrieval_pb2.SearchBatchResponse:
    """Returns the message of a reply to a batch."""
    message = retrieval_pb2.SearchBatchResponse()
    for result in reply.results:
        _fill_hits(message.results.add(), result)
    fill_info(message.info, reply.info)
    return message


def batch_reply(message: retrieval_pb2.SearchBatchResponse) -> c.SearchReply:
    """Returns the reply of a batch."""
    return c.SearchReply(
        results=[_hits_from_proto(result) for result in message.results],
        info=info_from_proto(message.info),
    )


def items_response(reply: c.ItemsReply) -> retrieval_pb2.GetItemsResponse:
    """Returns the message of a reply to GetItems."""
    message = retrieval_pb2.GetItemsResponse(items=[item_to_proto(i) for i in reply.items])
    for ignored in reply.ignored_ids:
        message.ignored_ids.add(id=ignored.id, reason=IGNORED[ignored.reason])
    fill_info(message.info, reply.info)
    return message


def items_reply(message: retrieval_pb2.GetItemsResponse) -> c.ItemsReply:
    """Returns the reply of GetItems."""
    return c.ItemsReply(
        items=[item_from_proto(item) for item in message.items],
        ignored_ids=ignored_from_proto(message.ignored_ids),
        info=info_from_proto(message.info),
    )


def items_page(message: retrieval_pb2.ListItemsResponse) -> c.ItemsPage:
    """Returns the page of a message."""
    return c.ItemsPage(
        items=[item_from_proto(item) for item in message.items],
        next_page_token=message.next_page_token,
        info=info_from_proto(message.info),
    )


def list_response(page: c.ItemsPage) -> retrieval_pb2.ListItemsResponse:
    """Returns the message of a page."""
    message = retrieval_pb2.ListItemsResponse(
        items=[item_to_proto(item) for item in page.items], next_page_token=page.next_page_token
    )
    fill_info(message.info, page.info)
    return message


def suggestion_to_proto(suggestion: c.Suggestion) -> retrieval_pb2.Suggestion:
    """Returns the message of a suggestion."""
    return retrieval_pb2.Suggestion(
        title=suggestion.title,
        id=suggestion.id,
        score=suggestion.score,
        spans=spans_to_proto(suggestion.spans),
    )


def suggestion_from_proto(message: retrieval_pb2.Suggestion) -> c.Suggestion:
    """Returns the suggestion of a message."""
    return c.Suggestion(
        title=message.title,
        id=message.id,
        score=message.score,
        spans=spans_from_proto(message.spans),
    )


def suggest_response(reply: c.SuggestReply) -> retrieval_pb2.SuggestResponse:
    """Returns the message of suggestions."""
    message = retrieval_pb2.SuggestResponse(
        suggestions=map(suggestion_to_proto, reply.suggestions),
        correction=reply.correction,
        queries=[
            retrieval_pb2.PopularQuery(text=one.text, count=one.count) for one in reply.queries
        ],
    )
    fill_info(message.info, reply.info)
    return message


def suggest_reply(message: retrieval_pb2.SuggestResponse) -> c.SuggestReply:
    """Returns the suggestions of a message."""
    return c.SuggestReply(
        suggestions=[suggestion_from_proto(one) for one in message.suggestions],
        correction=message.correction,
        info=info_from_proto(message.info),
        queries=[c.PopularQuery(text=one.text, count=one.count) for one in message.queries],
    )


def count_response(reply: c.CountReply) -> retrieval_pb2.CountItemsResponse:
    """Returns the message of counted items."""
    message = retrieval_pb2.CountItemsResponse(count=reply.count)
    for facet in reply.facets:
        target = message.facets.add(
            field=facet.field, distinct=facet.distinct, missing=facet.missing
        )
        for value, count in facet.counts:
            target.counts.add(value=value_to_proto(value), count=count)
    fill_info(message.info, reply.info)
    return message


def count_reply(message: retrieval_pb2.CountItemsResponse) -> c.CountReply:
    """Returns the counted items of a message."""
    return c.CountReply(
        count=message.count,
        facets=[
            c.FacetCounts(
                field=facet.field,
                counts=[(scalar_from_proto(one.value), one.count) for one in facet.counts],
                distinct=facet.distinct,
                missing=facet.missing,
            )
            for facet in message.facets
        ],
        info=info_from_proto(message.info),
    )
