"""Prometheus metrics of the generation service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

model_attempts = Counter(
    "nearline_generation_model_attempts_total",
    "Requests to a language model by outcome: stop, length, abandoned by its caller, or the class "
    "of the failure; open and busy were never sent.",
    ("model", "outcome"),
)
model_first_text_seconds = Histogram(
    "nearline_generation_model_first_text_seconds",
    "Time from a request to a language model to its first text.",
    ("model",),
    buckets=(0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16, 32, 64),
)
breaker_state = Gauge(
    "nearline_generation_breaker_state",
    "Of a language model: 0 closed, 1 half-open (one request goes out to probe), 2 open.",
    ("model",),
)
answers = Counter(
    "nearline_generation_answers_total",
    "Ends of answers: a finish, cached, not_sure, or a reason of refusal.",
    ("collection", "outcome"),
)
first_delta_seconds = Histogram(
    "nearline_generation_first_delta_seconds",
    "Time from a question to the first piece of its answer.",
    ("collection", "backend"),
    buckets=(0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16, 32, 64),
)
routes = Counter(
    "nearline_generation_routes_total",
    "Choices of the router: the kind of a question and the first writer asked.",
    ("kind", "backend"),
)
rungs = Counter(
    "nearline_generation_rungs_total",
    "Tries to write an answer: ok, or the class of the failure.",
    ("backend", "outcome"),
)
tokens = Counter(
    "nearline_generation_model_tokens_total",
    "Tokens that models read and wrote.",
    ("model", "direction"),
)
cost = Counter(
    "nearline_generation_model_cost_total",
    "Cost of models by the price list, in its currency.",
    ("model",),
)
left_out = Counter(
    "nearline_generation_left_out_total",
    "What the checks took out of answers: sentences without support, markers without a source.",
    ("what",),
)
cache_reads = Counter(
    "nearline_generation_answer_cache_reads_total",
    "Looks into the cache of answers: hit, miss, stale (a source changed) or away.",
    ("outcome",),
)
budget_refusals = Counter(
    "nearline_generation_budget_refusals_total",
    "Questions that no model was asked, for want of a budget.",
)
