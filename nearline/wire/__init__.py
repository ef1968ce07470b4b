"""Pure converters between contract records and protobuf messages, used at both ends of the wire."""

from nearline.wire.embeddings import (
    embed_response as embed_response,
    embedder_info as embedder_info,
    embeddings as embeddings,
    entail_response as entail_response,
    entailment_scores as entailment_scores,
    info_response as info_response,
    rerank_response as rerank_response,
    rerank_scores as rerank_scores,
)
from nearline.wire.enums import (
    LANES as LANES,
    ROLES as ROLES,
    lane_from_proto as lane_from_proto,
    payload_from_proto as payload_from_proto,
    payload_to_proto as payload_to_proto,
    role_from_proto as role_from_proto,
)
from nearline.wire.filters import (
    filter_from_proto as filter_from_proto,
    filter_to_proto as filter_to_proto,
)
from nearline.wire.generation import (
    citation_from_proto as citation_from_proto,
    citation_to_proto as citation_to_proto,
    citations_from_proto as citations_from_proto,
    event_from_proto as event_from_proto,
    event_to_proto as event_to_proto,
    question_from_proto as question_from_proto,
    question_to_proto as question_to_proto,
    session_from_proto as session_from_proto,
    session_to_proto as session_to_proto,
    verify_reply as verify_reply,
    verify_response as verify_response,
)
from nearline.wire.highlights import (
    highlights_from_proto as highlights_from_proto,
    highlights_to_proto as highlights_to_proto,
)
from nearline.wire.ingest import (
    JOB_PRIORITIES as JOB_PRIORITIES,
    JOB_STATES as JOB_STATES,
    ingest_result_from_proto as ingest_result_from_proto,
    ingest_result_to_proto as ingest_result_to_proto,
    job_from_proto as job_from_proto,
    job_to_proto as job_to_proto,
    letter_from_proto as letter_from_proto,
    letter_to_proto as letter_to_proto,
    priority_from_proto as priority_from_proto,
    queue_response as queue_response,
    queue_state as queue_state,
    result_ttl_of as result_ttl_of,
    source_from_proto as source_from_proto,
    source_to_proto as source_to_proto,
    sources_of as sources_of,
    states_from_proto as states_from_proto,
    submit_request as submit_request,
)
from nearline.wire.items import item_from_proto as item_from_proto, item_to_proto as item_to_proto
from nearline.wire.limits import bounded as bounded, check_count as check_count
from nearline.wire.queries import (
    facets_from_proto as facets_from_proto,
    filter_of as filter_of,
    options_from_proto as options_from_proto,
    options_to_proto as options_to_proto,
    queries_from_proto as queries_from_proto,
    query_from_proto as query_from_proto,
    query_to_proto as query_to_proto,
)
from nearline.wire.raw_hits import RawHits as RawHits
from nearline.wire.recommendations import (
    audience_from_proto as audience_from_proto,
    columns_of as columns_of,
    deletion_receipt as deletion_receipt,
    deletion_response as deletion_response,
    import_request as import_request,
    interaction_to_proto as interaction_to_proto,
    interactions_from_proto as interactions_from_proto,
    lazy_recommendations as lazy_recommendations,
    recommend_options as recommend_options,
    recommend_reply as recommend_reply,
    recommend_request as recommend_request,
    recommend_response as recommend_response,
    recommendation_to_bytes as recommendation_to_bytes,
    recommended_hit_from_bytes as recommended_hit_from_bytes,
    user_record as user_record,
    user_response as user_response,
)
from nearline.wire.replies import (
    batch_reply as batch_reply,
    batch_response as batch_response,
    cost_from_proto as cost_from_proto,
    cost_to_proto as cost_to_proto,
    count_reply as count_reply,
    count_response as count_response,
    hit_to_bytes as hit_to_bytes,
    items_page as items_page,
    items_reply as items_reply,
    items_response as items_response,
    lazy_hits as lazy_hits,
    list_response as list_response,
    plan_from_proto as plan_from_proto,
    plan_to_proto as plan_to_proto,
    search_reply as search_reply,
    search_response as search_response,
    suggest_reply as suggest_reply,
    suggest_response as suggest_response,
    suggestion_from_proto as suggestion_from_proto,
    suggestion_to_proto as suggestion_to_proto,
)
from nearline.wire.values import (
    attributes_from_proto as attributes_from_proto,
    duration as duration,
    scalar_from_proto as scalar_from_proto,
    seconds as seconds,
    set_duration as set_duration,
    user_attributes as user_attributes,
    value_from_proto as value_from_proto,
    value_to_proto as value_to_proto,
    values_by_name as values_by_name,
)
from nearline.wire.writes import (
    as_of_of as as_of_of,
    delete_request as delete_request,
    delete_response as delete_response,
    delete_stream_reply as delete_stream_reply,
    delete_stream_response as delete_stream_response,
    if_versions_of as if_versions_of,
    items_of as items_of,
    lane_of as lane_of,
    upsert_request as upsert_request,
    upsert_response as upsert_response,
    upsert_stream_reply as upsert_stream_reply,
    upsert_stream_response as upsert_stream_response,
    write_reply as write_reply,
)
