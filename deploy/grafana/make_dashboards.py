"""Makes the dashboards in dashboards/ from the queries below: `python deploy/grafana/make_dashboards.py`.

A panel is (title, unit, queries); a query is (expression, legend).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

Query: TypeAlias = tuple[str, str]
Panel: TypeAlias = tuple[str, str, list[Query]]
# By title of a row.
Rows: TypeAlias = dict[str, list[Panel]]

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, HEIGHT, PER_ROW = 8, 8, 3


def quantile(share: float, metric: str, by: str, where: str = "") -> str:
    """Returns the query for a quantile of a histogram."""
    labels = ", ".join((*filter(None, (by,)), "le"))
    selected = f"{metric}_bucket{{{where}}}" if where else f"{metric}_bucket"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({selected}[5m])))"


def rate(metric: str, by: str, where: str = "") -> str:
    """Returns the query for the rate of a counter, summed by labels."""
    selected = f"{metric}{{{where}}}" if where else metric
    return f"sum by ({by}) (rate({selected}[5m]))"


def four_signals(service: str) -> list[Panel]:
    """Returns rate, errors, latency and saturation of a server of gRPC."""
    of = f'service="{service}"'
    calls = "nearline_server_call_seconds"
    return [
        ("Calls", "reqps", [(rate(f"{calls}_count", "method, code", of), "{{method}} {{code}}")]),
        (
            "Failed calls",
            "percentunit",
            [(f'nearline:call_errors:ratio_rate5m{{service="{service}"}}', "{{service}}")],
        ),
        (
            "Duration of a call",
            "s",
            [
                (quantile(0.5, calls, "method", f'{of},code="OK"'), "{{method}} p50"),
                (quantile(0.99, calls, "method", f'{of},code="OK"'), "{{method}} p99"),
            ],
        ),
        (
            "Running and waiting calls",
            "short",
            [
                (f"sum by (instance) (nearline_server_running_calls{{{of}}})", "{{instance}} run"),
                (f"sum by (instance) (nearline_server_waiting_calls{{{of}}})", "{{instance}} wait"),
                (f"sum by (instance) (nearline_server_call_limit{{{of}}})", "{{instance}} may run"),
            ],
        ),
        ("Event loop: late by (p99)", "s", [
            (quantile(0.99, "nearline_server_loop_lag_seconds", "instance", of), "{{instance}}"),
        ]),
        ("Processor", "short", [
            (f"sum by (instance) (rate(process_cpu_seconds_total{{{of}}}[5m]))", "{{instance}} cores"),
        ]),
        ("Memory", "bytes", [
            (f"sum by (instance) (process_resident_memory_bytes{{{of}}})", "{{instance}}"),
        ]),
    ]  # fmt: skip


def calls_to(caller: str) -> list[Panel]:
    """Returns rate, errors and latency of the calls that a service makes."""
    of = f'service="{caller}"'
    calls = "nearline_client_call_seconds"
    return [
        ("Calls made", "reqps", [
            (rate(f"{calls}_count", "target, method, code", of), "{{target}} {{method}} {{code}}"),
        ]),
        ("Duration of calls made (p99)", "s", [
            (quantile(0.99, calls, "target, method", of), "{{target}} {{method}}"),
        ]),
    ]  # fmt: skip


R = "nearline_retrieval"
DASHBOARDS: dict[str, Rows] = {
    "overview": {
        "Is it well?": [
            ("Processes that answer", "short", [('sum by (service) (up{job="nearline"})', "{{service}}")]),
            ("Alerts", "short", [('count by (alertname, severity) (ALERTS{alertstate="firing"}) or vector(0)', "{{alertname}} {{severity}}")]),
            ("Failed calls", "percentunit", [("nearline:call_errors:ratio_rate5m", "{{service}}")]),
            ("Searches slower than 50 ms", "percentunit", [
                ("nearline:slow_searches:ratio_rate5m", "5 minutes"),
                ("nearline:slow_searches:ratio_rate1h", "1 hour"),
            ]),
            ("Allowance of failures used (1: as planned)", "short", [
                ("nearline:call_errors:ratio_rate1h / 0.001", "{{service}} 1 hour"),
                ("nearline:call_errors:ratio_rate3d / 0.001", "{{service}} 3 days"),
            ]),
            ("Calls", "reqps", [("nearline:calls:rate5m", "{{service}}")]),
        ],
        "What does it use?": [
            ("Processor", "short", [("nearline:cpu_seconds:rate5m", "{{service}} cores")]),
            ("Memory", "bytes", [('sum by (service) (process_resident_memory_bytes{job="nearline"})', "{{service}}")]),
            ("Starts", "short", [('sum by (service) (changes(process_start_time_seconds{job="nearline"}[1h]))', "{{service}}")]),
            ("Used share of resources", "percentunit", [("max by (resource) (nearline_feed_block_used_share)", "{{resource}}")]),
            ("Days until a certificate expires", "d", [
                ("(min by (service) (nearline_server_certificate_expiry_timestamp_seconds > 0) - time()) / 86400", "{{service}}"),
            ]),
        ],
    },
    "router": {
        "Signals": four_signals("router"),
        "Stages": [
            ("Embedding and search (p99)", "s", [(quantile(0.99, f"{R}_stage_seconds", "collection, stage"), "{{collection}} {{stage}}")]),
            ("Waiting for a turn (p99)", "s", [(quantile(0.99, "nearline_server_turn_seconds", "service"), "{{service}}")]),
            ("Waiting for a search thread (p99)", "s", [(quantile(0.99, f"{R}_thread_wait_seconds", "service"), "{{service}}")]),
            *calls_to("router"),
            ("Calls passed on", "reqps", [(rate("nearline_server_forwarded_seconds_count", "target, code"), "{{target}} {{code}}")]),
        ],
        "What it leaves out": [
            ("Refused calls", "reqps", [(rate("nearline_server_refused_calls_total", "service, why"), "{{service}} {{why}}")]),
            ("Calls beyond a tenant's limit", "reqps", [(rate("nearline_server_limited_calls_total", "service, limit"), "{{service}} {{limit}}")]),
            ("Left out under overload", "reqps", [(rate("nearline_server_left_out_total", "service, what"), "{{service}} {{what}}")]),
            ("Answers that lack a shard", "reqps", [(rate(f"{R}_partial_answers_total", "collection"), "{{collection}}")]),
            ("Searches by words alone", "reqps", [(rate(f"{R}_lexical_fallbacks_total", "collection, reason"), "{{collection}} {{reason}}")]),
        ],
        "Caches": [
            ("Reads of cached lists", "reqps", [(rate(f"{R}_hot_reads_total", "collection, level"), "{{collection}} {{level}}")]),
            ("Hit ratio", "percentunit", [
                (f'sum by (collection) (rate({R}_hot_reads_total{{level!="live"}}[5m])) / sum by (collection) (rate({R}_hot_reads_total[5m]))', "{{collection}}"),
            ]),
            ("Computed lists", "reqps", [(rate(f"{R}_hot_computations_total", "collection, outcome"), "{{collection}} {{outcome}}")]),
            ("Failures of the shared cache", "reqps", [(rate(f"{R}_hot_redis_failures_total", "service"), "{{service}}")]),
        ],
        "Quality": [
            ("Recall@10 by arm", "percentunit", [(f"min by (collection, arm) ({R}_online_recall_mean)", "{{collection}} {{arm}}")]),
            ("Recall@10 by filter", "percentunit", [
                (f"sum by (collection, filter) (rate({R}_online_recall_sum[15m])) / sum by (collection, filter) (rate({R}_online_recall_count[15m]))", "{{collection}} {{filter}}"),
            ]),
            ("Recall@10 by shard", "percentunit", [
                (f"sum by (collection, shard) (rate({R}_online_shard_recall_sum[15m])) / sum by (collection, shard) (rate({R}_online_shard_recall_count[15m]))", "{{collection}} {{shard}}"),
            ]),
            ("Sampled and not compared", "reqps", [(rate(f"{R}_recall_skipped_total", "collection, reason"), "{{collection}} {{reason}}")]),
            ("Best scores: stability index", "short", [(f"max by (collection, baseline) ({R}_score_drift)", "{{collection}} {{baseline}}")]),
            ("Queries: energy distance", "short", [(f'max by (collection, baseline) ({R}_query_drift{{measure="energy"}})', "{{collection}} {{baseline}}")]),
            ("Popularity: divergence in bits", "short", [(f"max by (collection) ({R}_popularity_drift)", "{{collection}}")]),
            ("Items changed since the build", "percentunit", [(f"max by (collection) ({R}_item_drift)", "{{collection}}")]),
            ("Golden queries: shift of the best score", "short", [(f"max by (collection) ({R}_golden_score_shift)", "{{collection}}")]),
        ],
    },
    "shards": {
        "Signals": four_signals("shard"),
        "Shards": [
            ("Shard servers that a router reaches", "short", [(f"max by (replica) ({R}_replica_ready)", "{{replica}}")]),
            ("Ejections", "reqps", [(rate(f"{R}_replica_ejections_total", "replica, reason"), "{{replica}} {{reason}}")]),
            ("Failed or late answers", "reqps", [(rate(f"{R}_shard_failures_total", "collection, shard, reason"), "{{collection}} {{shard}} {{reason}}")]),
            ("Retries on another replica", "reqps", [(rate(f"{R}_retries_total", "collection, shard, outcome"), "{{collection}} {{shard}} {{outcome}}")]),
            ("Hedged calls", "reqps", [(rate(f"{R}_hedges_total", "collection, shard, outcome"), "{{collection}} {{shard}} {{outcome}}")]),
            ("Vectors", "short", [(f"sum by (collection, shard) ({R}_shard_vectors)", "{{collection}} {{shard}}")]),
            ("Vectors in a batch (mean)", "short", [
                (f"sum by (collection, shard) (rate({R}_batch_vectors_sum[5m])) / sum by (collection, shard) (rate({R}_batch_vectors_count[5m]))", "{{collection}} {{shard}}"),
            ]),
            ("GPUs that answer", "short", [(f"min by (device) ({R}_gpu_up)", "{{device}}")]),
            ("Searches that the CPU took over", "reqps", [(rate(f"{R}_gpu_fallbacks_total", "collection, shard"), "{{collection}} {{shard}}")]),
        ],
    },
    "embedding": {
        "Signals": four_signals("embedding"),
        "Queue and batches": [
            ("Waiting tokens", "short", [("sum by (model, lane) (nearline_embedding_queued_tokens)", "{{model}} {{lane}}")]),
            ("Stages of a request (p99)", "s", [(quantile(0.99, "nearline_embedding_stage_seconds", "model, lane, stage"), "{{model}} {{lane}} {{stage}}")]),
            ("Texts in a batch (mean)", "short", [
                ("sum by (model, lane) (rate(nearline_embedding_batch_texts_sum[5m])) / sum by (model, lane) (rate(nearline_embedding_batch_texts_count[5m]))", "{{model}} {{lane}}"),
            ]),
            ("Texts", "reqps", [(rate("nearline_embedding_texts_total", "model, lane"), "{{model}} {{lane}}")]),
            ("Tokens", "short", [
                (rate("nearline_embedding_tokens_total", "model, lane"), "{{model}} {{lane}}"),
                ("sum by (model) (nearline_embedding_tokens_per_second)", "{{model}} it can"),
            ]),
            ("Share of padding", "percentunit", [
                ("1 - sum by (model) (rate(nearline_embedding_tokens_total[5m])) / sum by (model) (rate(nearline_embedding_padded_tokens_total[5m]))", "{{model}}"),
            ]),
            ("Dropped texts", "reqps", [(rate("nearline_embedding_dropped_texts_total", "model, lane, reason"), "{{model}} {{lane}} {{reason}}")]),
            ("Refused requests", "reqps", [(rate("nearline_embedding_refused_requests_total", "model, lane"), "{{model}} {{lane}}")]),
            ("Failed batches", "reqps", [(rate("nearline_embedding_failed_batches_total", "model"), "{{model}}")]),
            ("Truncated texts", "reqps", [(rate("nearline_embedding_truncated_texts_total", "model, lane"), "{{model}} {{lane}}")]),
            ("GPUs that answer, and configured", "short", [
                ("sum by (model) (nearline_embedding_gpus)", "{{model}}"),
                ("sum by (model) (nearline_embedding_configured_gpus)", "{{model}} configured"),
            ]),
            ("As routers see them: answers", "short", [(f"max by (replica) ({R}_embedder_ready)", "{{replica}}")]),
        ],
    },
    "generation": {
        "Signals": four_signals("generation"),
        "Answers": [
            ("Answers by outcome", "reqps", [(rate("nearline_generation_answers_total", "outcome"), "{{outcome}}")]),
            ("First piece of an answer (p99)", "s", [(quantile(0.99, "nearline_generation_first_delta_seconds", "backend"), "{{backend}}")]),
            ("Kinds of questions, and first writer", "reqps", [(rate("nearline_generation_routes_total", "kind, backend"), "{{kind}} {{backend}}")]),
            ("Tries to write an answer", "reqps", [(rate("nearline_generation_rungs_total", "backend, outcome"), "{{backend}} {{outcome}}")]),
            ("Taken out by checks", "reqps", [(rate("nearline_generation_left_out_total", "what"), "{{what}}")]),
            ("Cache of answers", "reqps", [(rate("nearline_generation_answer_cache_reads_total", "outcome"), "{{outcome}}")]),
            *calls_to("generation"),
        ],
        "Language models": [
            ("Requests", "reqps", [(rate("nearline_generation_model_attempts_total", "model, outcome"), "{{model}} {{outcome}}")]),
            ("First text (p99)", "s", [(quantile(0.99, "nearline_generation_model_first_text_seconds", "model"), "{{model}}")]),
            ("Tokens", "short", [(rate("nearline_generation_model_tokens_total", "model, direction"), "{{model}} {{direction}}")]),
            ("Circuit breaker (0 closed, 2 open)", "short", [("max by (model) (nearline_generation_breaker_state)", "{{model}}")]),
            ("Refused for want of a budget", "reqps", [(rate("nearline_generation_budget_refusals_total", "service"), "{{service}}")]),
        ],
    },
    "ingest": {
        "Signals": four_signals("ingest"),
        "Queue": [
            ("Not processed yet", "short", [
                ("max by (job) (nearline_ingest_lag)", "all"),
                ("max by (job) (nearline_ingest_waiting)", "waiting"),
                ("max by (job) (nearline_ingest_in_hand)", "leased by a worker"),
                ("max by (job) (nearline_ingest_delayed)", "waiting for a retry"),
            ]),
            ("Age of the oldest", "s", [("max by (job) (nearline_ingest_oldest_age_seconds)", "oldest")]),
            ("Dead letters", "short", [("max by (job) (nearline_ingest_dead_letters)", "dead letters")]),
            ("Workers", "short", [("max by (job) (nearline_ingest_workers)", "workers")]),
            ("Documents per second", "short", [
                ("max by (job) (nearline_ingest_documents_per_second)", "all workers"),
                ("max by (job) (nearline_ingest_worker_documents_per_second)", "the fastest worker"),
            ]),
        ],
        "Workers": [
            ("Documents by outcome", "reqps", [(rate("nearline_worker_documents_total", "outcome"), "{{outcome}}")]),
            ("Retries, and expired leases", "reqps", [
                (rate("nearline_worker_retries_total", "service"), "retries"),
                (rate("nearline_worker_lost_leases_total", "service"), "expired leases"),
            ]),
            ("Time of a batch (p99)", "s", [(quantile(0.99, "nearline_worker_batch_seconds", "service"), "{{service}}")]),
            *calls_to("worker"),
            ("Processor of workers", "short", [('sum by (instance) (rate(process_cpu_seconds_total{service="worker"}[5m]))', "{{instance}} cores")]),
        ],
    },
    "gateway": {
        "Signals": [
            ("Requests", "reqps", [(rate("nearline_gateway_request_seconds_count", "path, status"), "{{path}} {{status}}")]),
            ("Failed requests", "percentunit", [('nearline:call_errors:ratio_rate5m{service="gateway"}', "{{service}}")]),
            ("Time until a reply (p99)", "s", [(quantile(0.99, "nearline_gateway_request_seconds", "path"), "{{path}}")]),
            ("Requests whose reply has not begun", "short", [("sum by (instance) (nearline_gateway_running_requests)", "{{instance}}")]),
            ("Event loop: late by (p99)", "s", [(quantile(0.99, "nearline_server_loop_lag_seconds", "instance", 'service="gateway"'), "{{instance}}")]),
            ("Processor", "short", [('sum by (instance) (rate(process_cpu_seconds_total{service="gateway"}[5m]))', "{{instance}} cores")]),
            *calls_to("gateway"),
        ],
    },
    "upkeep": {
        "Upkeep": [
            ("Since the last round", "s", [("time() - max by (job) (nearline_upkeep_round_timestamp_seconds > 0)", "round")]),
            ("Since a collection was maintained", "s", [("time() - max by (collection) (nearline_upkeep_success_timestamp_seconds)", "{{collection}}")]),
            ("Changes that wait for a new snapshot", "short", [("max by (collection) (nearline_upkeep_pending_changes)", "{{collection}}")]),
            ("Age of the oldest of them", "s", [(f"max by (collection) ({R}_oldest_change_seconds)", "{{collection}}")]),
            ("Rebuilds requested after a drift", "short", [(f"sum by (collection, drift) (increase({R}_drift_rebuilds_total[1d]))", "{{collection}} {{drift}}")]),
            *calls_to("upkeep"),
        ],
        "Snapshots": [
            ("Epoch", "short", [(f"max by (collection, service) ({R}_epoch)", "{{collection}} {{service}}")]),
            ("Age of the snapshot that is served", "s", [(f"time() - max by (collection) ({R}_snapshot_created_timestamp_seconds)", "{{collection}}")]),
            ("Time to load one (mean)", "s", [
                (f"sum by (collection, service) (rate({R}_snapshot_prepare_seconds_sum[1h])) / sum by (collection, service) (rate({R}_snapshot_prepare_seconds_count[1h]))", "{{collection}} {{service}}"),
            ]),
            ("Snapshots loaded", "short", [(f"max by (collection, service) ({R}_snapshots)", "{{collection}} {{service}}")]),
            ("Not served", "short", [(f"sum by (collection, reason) (increase({R}_snapshot_failures_total[1h]))", "{{collection}} {{reason}}")]),
        ],
        "Canary": [
            ("Share of the canary", "percentunit", [(f"max by (collection) ({R}_rollout_share)", "{{collection}}")]),
            ("Evidence against the canary (1: backs out)", "short", [(f"max by (collection, test) ({R}_rollout_evidence)", "{{collection}} {{test}}")]),
            ("Backed out", "short", [(f"sum by (collection, reason) (increase({R}_rollout_backouts_total[1h]))", "{{collection}} {{reason}}")]),
        ],
    },
    "changes": {
        "Redis": [
            ("Used memory", "bytes", [
                ('max by (job) (nearline_feed_block_used_share{resource="redis"} * nearline_feed_block_total_bytes{resource="redis"})', "used"),
                ('max by (job) (nearline_feed_block_total_bytes{resource="redis"})', "limit"),
            ]),
            ("Change logs", "bytes", [("max by (collection) (nearline_upkeep_log_bytes)", "{{collection}}")]),
            ("Changes in the log", "short", [("max by (collection) (nearline_upkeep_log_changes)", "{{collection}}")]),
            ("Nothing may be added (1)", "short", [("max by (resource) (nearline_feed_block_blocked)", "{{resource}}")]),
            ("Refused for want of room", "reqps", [(rate("nearline_feed_block_refusals_total", "resource"), "{{resource}}")]),
        ],
        "Writes": [
            ("Writes by outcome", "reqps", [(rate(f"{R}_writes_total", "collection, outcome"), "{{collection}} {{outcome}}")]),
            ("Until durable (p99)", "s", [(quantile(0.99, f"{R}_write_seconds", "collection"), "{{collection}}")]),
            ("Requests recorded", "reqps", [(rate(f"{R}_recorded_requests_total", "collection, outcome"), "{{collection}} {{outcome}}")]),
        ],
        "Followers": [
            ("Changes are late by", "s", [(f"max by (collection, service) ({R}_change_lag_seconds)", "{{collection}} {{service}}")]),
            ("Changes not applied", "short", [(f"max by (collection, service) ({R}_changes_behind)", "{{collection}} {{service}}")]),
            ("Log not read for", "s", [(f"max by (collection, service) ({R}_log_away_seconds)", "{{collection}} {{service}}")]),
            ("Changes applied", "reqps", [(rate(f"{R}_changes_applied_total", "collection, service"), "{{collection}} {{service}}")]),
            ("Rows of live changes", "short", [(f"max by (collection, state) ({R}_live_rows)", "{{collection}} {{state}}")]),
        ],
    },
    "cost": {
        "Cost": [
            ("1,000 requests, processors of all services", "short", [("nearline:cost_per_1000_requests", "currency")]),
            ("Processor seconds of a request", "s", [("nearline:cpu_seconds_per_request", "{{service}}")]),
            ("Processor seconds of a call, by method", "s", [("nearline:cpu_seconds_per_call", "{{service}} {{method}}")]),
            ("An hour of all processors in use", "short", [("sum(nearline:cpu_seconds:rate5m) * scalar(nearline:price_per_core_hour)", "currency")]),
            ("Language models, an hour", "short", [("sum by (model) (rate(nearline_generation_model_cost_total[1h])) * 3600", "{{model}}")]),
        ],
    },
}  # fmt: skip


def dashboard(name: str, rows: Rows) -> dict[str, object]:
    """Returns a dashboard in Grafana's format."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels: list[dict[str, object]] = []
    y = 0
    for title, contents in rows.items():
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        number = len(panels) + 1
        panels.append({"id": number, "type": "row", "title": title, "gridPos": place})
        y += 1
        for at, (shown, unit, queries) in enumerate(contents):
            x, below = at % PER_ROW * WIDTH, at // PER_ROW * HEIGHT
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": "timeseries",
                    "title": shown,
                    "datasource": source,
                    "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y + below},
                    "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                    "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
                    "targets": [
                        {"refId": chr(ord("A") + at), "expr": expr, "legendFormat": legend}
                        for at, (expr, legend) in enumerate(queries)
                    ],
                }
            )
        y += -(-len(contents) // PER_ROW) * HEIGHT
    variable = {
        "name": "source",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    return {
        "title": f"Nearline: {name}",
        "uid": f"nearline-{name}",
        "tags": ["nearline"],
        "timezone": "browser",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [variable]},
        "links": [
            {
                "type": "dashboards",
                "title": "Nearline",
                "tags": ["nearline"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": panels,
    }


def contents() -> dict[str, str]:
    """Returns the contents of the files by name."""
    return {
        f"{name}.json": json.dumps(dashboard(name, rows), indent=1) + "\n"
        for name, rows in DASHBOARDS.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in contents().items():
        (FOLDER / name).write_text(text, "utf-8")
