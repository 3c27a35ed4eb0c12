"""Every metric of Penstock, in one place: a name is registered here before it is used.

Labels are small, closed sets (service, topic, status, model, team); never a request's id or a user's text.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from penstock.telemetry import gen_ai

__all__ = [
    "ALERT_DELIVERIES", "ALERT_OLDEST_SECONDS", "ALERT_QUEUE", "BATCH_SECONDS", "BROKEN_CALLS", "CACHE_LOOKUPS",
    "CACHE_SECONDS", "CANARY_REQUESTS", "CIRCUIT_CHANGES", "CIRCUIT_STATE", "CO2E_GRAMS", "CONSUMED",
    "DEAD_LETTERS", "END_TO_END_SECONDS", "ENERGY_JOULES", "ENGINE_BATCH_SIZE", "ENGINE_DEATHS",
    "ENGINE_KV_CACHE_USAGE", "ENGINE_PREEMPTIONS", "ENGINE_QUEUE_SECONDS", "ENGINE_RUNNING", "ENGINE_TOKENS",
    "ENGINE_WAITING", "ESTIMATED_USAGE", "EVALUATOR_FAILURES", "EVALUATOR_SCORES", "EVALUATOR_SECONDS",
    "EXPERIMENT_SKIPS", "FINDINGS", "FINISHED", "FIRST_RELEASED_SECONDS", "GROUNDED", "HTTP_REQUESTS",
    "HTTP_SECONDS", "HTTP_UNDER_WAY", "INDEXED_CHUNKS", "IN_FLIGHT", "LEFT_ALONE", "OPERATION_SECONDS",
    "PREFIX_CACHE_HITS", "PREFIX_CACHE_QUERIES", "PRODUCED", "QUEUE_ESTIMATE_RATIO", "QUEUE_ESTIMATE_SECONDS",
    "QUEUE_REQUESTS", "QUEUE_SECONDS", "REDELIVERED", "REFUSED", "REQUEST_SECONDS", "RERANKINGS", "RETRIES",
    "RETRIEVAL_BEST_SCORE", "RETRIEVED_PASSAGES", "REVIEWS", "ROUTE_CHOICES", "SCANNER_FAILURES", "SCREENED",
    "SCREEN_SECONDS", "SEMANTIC_CACHE_DIFFERENCES", "SEMANTIC_CACHE_FALSE_HITS", "SEMANTIC_CACHE_HITS",
    "SEMANTIC_CACHE_LOOKUPS", "SEMANTIC_CACHE_SIMILARITY", "SHADOW_CALLS", "TIME_PER_OUTPUT_TOKEN_SECONDS",
    "TIME_TO_FIRST_TOKEN_SECONDS", "TOKEN_USAGE", "UP", "WASTED_TOKENS",
]  # fmt: skip

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SHARES = tuple(step / 20 for step in range(21))
_SLOW = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)

CONSUMED = Counter("penstock_consumed_messages", "Messages read and finished.", ["service", "topic"])
PRODUCED = Counter("penstock_produced_messages", "Messages acknowledged by the broker.", ["service", "topic"])
DEAD_LETTERS = Counter("penstock_dead_letters", "Messages given up, by cause.", ["service", "topic", "code"])
RETRIES = Counter("penstock_retries", "Tries repeated after a transient failure.", ["service", "group"])
BATCH_SECONDS = Histogram(
    "penstock_batch_seconds", "Time of one batch in its handler.", ["service", "group"], buckets=_FAST
)
IN_FLIGHT = Gauge("penstock_in_flight_messages", "Messages read and not finished.", ["service", "group"])
UP = Gauge("penstock_ready", "1 while the service does its work.", ["service"])
REFUSED = Counter("penstock_refused_requests", "Requests ended early, by stage and cause.", ["service", "code"])
EXPERIMENT_SKIPS = Counter(
    "penstock_experiment_skips", "Requests that an experiment concerns and could not assign.", ["experiment", "code"]
)
QUEUE_REQUESTS = Gauge(
    "penstock_queue_requests",
    "Requests between their first decision and their result, those that wait included.",
    ["queue"],
)
QUEUE_ESTIMATE_SECONDS = Gauge(
    "penstock_queue_estimate_seconds", "How long the last request that came was expected to be under way.", ["queue"]
)
QUEUE_ESTIMATE_RATIO = Histogram(
    "penstock_queue_estimate_ratio",
    "How long a request was under way, as a share of what was expected when it came.",
    ["queue"],
    buckets=(0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2, 4, 10),
)
END_TO_END_SECONDS = Histogram(
    "penstock_end_to_end_seconds", "From the producer's request to its release.", ["status"], buckets=_SLOW
)
# Of the edge. The route is its template, never the address that was asked for.
HTTP_REQUESTS = Counter("penstock_http_requests", "Requests of HTTP that were answered.", ["route", "status"])
HTTP_SECONDS = Histogram(
    "penstock_http_seconds", "From the head of a request of HTTP to the end of its answer.", ["route"], buckets=_SLOW
)
HTTP_UNDER_WAY = Gauge("penstock_http_requests_under_way", "Requests of HTTP that are being answered.", [])
GROUNDED = Counter("penstock_grounded_requests", "Requests that left retrieval, by what was found.", ["grounding"])
RETRIEVAL_BEST_SCORE = Histogram(
    "penstock_retrieval_best_score",
    "Score of the best passage of a request that got any.",
    ["route"],
    buckets=_SHARES,
)
RETRIEVED_PASSAGES = Histogram(
    "penstock_retrieved_passages",
    "Passages attached to a request whose route asks for them.",
    ["route"],
    buckets=(0, 1, 2, 3, 4, 6, 8, 12, 20, 50, 100),
)
RERANKINGS = Counter(
    "penstock_rerankings", "Candidates of requests: reranked, unavailable or unknown.", ["reranker", "outcome"]
)
INDEXED_CHUNKS = Counter("penstock_indexed_chunks", "Chunks embedded for, or removed from the store.", ["action"])
SCREENED = Counter("penstock_screened_texts", "Events judged by guardrails.", ["stage", "action"])
FINDINGS = Counter("penstock_findings", "Finds that counted.", ["stage", "scanner", "action"])
SCANNER_FAILURES = Counter("penstock_scanner_failures", "Scanners that failed or had no time.", ["stage", "scanner"])
EVALUATOR_FAILURES = Counter("penstock_evaluator_failures", "Scores left out: the evaluator failed.", ["evaluator"])
EVALUATOR_SCORES = Histogram(
    "penstock_evaluator_scores", "Scores given, 0 to 1.", ["evaluator", "subject"], buckets=_SHARES
)
EVALUATOR_SECONDS = Histogram(
    "penstock_evaluator_seconds", "Time of scoring one batch.", ["evaluator"], buckets=(0.0001, 0.0002, *_FAST)
)
REVIEWS = Counter("penstock_reviews", "Texts held for a person: held, approved, denied, overdue.", ["outcome"])
SCREEN_SECONDS = Histogram("penstock_screen_seconds", "Time of scanning one event.", ["stage"], buckets=_FAST)
CACHE_LOOKUPS = Counter(
    "penstock_cache_lookups",
    "Answers looked for: hit, miss, unavailable, unreadable, or a hit passed over for another target.",
    ["cache", "outcome"],
)
CACHE_SECONDS = Histogram(
    "penstock_cache_seconds", "Time of looking for one answer.", ["cache"], buckets=(0.0001, 0.0002, 0.0003, *_FAST)
)
SEMANTIC_CACHE_LOOKUPS = Counter(
    "penstock_semantic_cache_lookups", "Questions compared with earlier ones; mode: shadow or on.", ["route", "mode"]
)
SEMANTIC_CACHE_HITS = Counter(
    "penstock_semantic_cache_hits", "Those that an earlier answer is given to, or would be.", ["route", "mode"]
)
SEMANTIC_CACHE_FALSE_HITS = Counter(
    "penstock_semantic_cache_false_hits", "Those whose own answer then said something else.", ["route", "mode"]
)
SEMANTIC_CACHE_DIFFERENCES = Counter(
    "penstock_semantic_cache_differences", "Earlier questions as near as a hit that ask for something else.", ["reason"]
)
SEMANTIC_CACHE_SIMILARITY = Histogram(
    "penstock_semantic_cache_similarity",
    "Cosine of two questions whose answers were compared in shadow; verdict: same or different.",
    ["route", "verdict"],
    buckets=(0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0),
)
ESTIMATED_USAGE = Counter(
    "penstock_estimated_usage", "Model calls whose tokens were estimated: nobody gave them.", ["backend", "model"]
)
BROKEN_CALLS = Counter(
    "penstock_broken_calls", "Model calls that gave no answer and may be charged for.", ["backend", "model"]
)
# Those of OpenTelemetry's conventions for generative AI, under the names that its exporter to Prometheus gives them. The
# model is the one that a route asks for: what an endpoint says of itself is no closed set.
_CALL = [gen_ai.label(name) for name in (gen_ai.OPERATION_NAME, gen_ai.PROVIDER_NAME, gen_ai.REQUEST_MODEL)]
OPERATION_SECONDS = Histogram(
    gen_ai.metric(gen_ai.OPERATION_DURATION, "seconds"),
    "Time of one call of a model; error_type says why it gave no answer, and is empty where it did.",
    [*_CALL, gen_ai.label(gen_ai.ERROR_TYPE)],
    buckets=gen_ai.DURATION_BUCKETS,
)
TOKEN_USAGE = Histogram(
    gen_ai.metric(gen_ai.TOKEN_USAGE),
    "Tokens of one call of a model.",
    [*_CALL, gen_ai.label(gen_ai.TOKEN_TYPE)],
    buckets=gen_ai.TOKEN_BUCKETS,
)
REQUEST_SECONDS = Histogram(
    gen_ai.metric(gen_ai.REQUEST_DURATION, "seconds"),
    "Time of one request in inference, all its calls and look-ups together; error_type is empty where it was answered.",
    [gen_ai.label(gen_ai.OPERATION_NAME), "route", gen_ai.label(gen_ai.ERROR_TYPE)],
    buckets=gen_ai.DURATION_BUCKETS,
)
TIME_TO_FIRST_TOKEN_SECONDS = Histogram(
    gen_ai.metric(gen_ai.TIME_TO_FIRST_TOKEN, "seconds"),
    "From a call to the first token of its answer, where the backend streams.",
    _CALL,
    buckets=gen_ai.TIME_TO_FIRST_TOKEN_BUCKETS,
)
TIME_PER_OUTPUT_TOKEN_SECONDS = Histogram(
    gen_ai.metric(gen_ai.TIME_PER_OUTPUT_TOKEN, "seconds"),
    "Time of each token after the first of an answer, where the backend streams.",
    _CALL,
    buckets=gen_ai.TIME_PER_OUTPUT_TOKEN_BUCKETS,
)
FINISHED = Counter("penstock_finished_generations", "Answers generated, by why they ended.", ["model", "finish_reason"])
QUEUE_SECONDS = Histogram(
    "penstock_queue_seconds", "From the event that asks inference to its first call.", ["priority"], buckets=_SLOW
)
ENGINE_QUEUE_SECONDS = Histogram(
    "penstock_engine_queue_seconds",
    "Part of a call that it waited in the engine's own queue.",
    ["model"],
    buckets=_FAST,
)
ENGINE_BATCH_SIZE = Histogram(
    "penstock_engine_batch_size",
    "Requests in one step of the engine of this process.",
    ["model"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
ENGINE_RUNNING = Gauge("penstock_engine_running_requests", "Requests that the engine generates for.", ["model"])
ENGINE_WAITING = Gauge("penstock_engine_waiting_requests", "Requests that wait in the engine's own queue.", ["model"])
ENGINE_KV_CACHE_USAGE = Gauge(
    "penstock_engine_kv_cache_usage_ratio", "Share of the engine's KV cache in use, 0 to 1.", ["model"]
)
PREFIX_CACHE_QUERIES = Counter(
    "penstock_engine_prefix_cache_queries", "Prompt tokens looked for in the engine's prefix cache.", ["model"]
)
PREFIX_CACHE_HITS = Counter("penstock_engine_prefix_cache_hits", "Prompt tokens that were found there.", ["model"])
ENGINE_TOKENS = Counter(
    "penstock_engine_tokens",
    "Tokens of the engine, by direction: input, cached ones included, or output.",
    ["model", "direction"],
)
ENGINE_PREEMPTIONS = Counter(
    "penstock_engine_preemptions",
    "Requests that made room in the engine's KV cache, and are computed again.",
    ["model"],
)
ENGINE_DEATHS = Counter("penstock_engine_deaths", "Engines of this process that died.", ["model"])
ENERGY_JOULES = Counter(
    "penstock_energy_joules", "Energy of model calls, J: an estimate, from the figures of config-energy.", ["model"]
)
CO2E_GRAMS = Counter(
    "penstock_energy_co2e_grams",
    "Emissions of that energy, grams of CO2 equivalent: an estimate, from the stated intensity of the grid.",
    ["model"],
)
FIRST_RELEASED_SECONDS = Histogram(
    "penstock_first_released_piece_seconds",
    "From the producer's request to the first released piece of its streamed answer.",
    [],
    buckets=_SLOW,
)
WASTED_TOKENS = Counter(
    "penstock_wasted_tokens",
    "Tokens of calls that died under way and were made again, by what died: process or engine, or log where it was away. "
    "But for those of an engine of this process they are paid for.",
    ["backend", "model", "cause"],
)
REDELIVERED = Counter(
    "penstock_redelivered_requests",
    "Requests that were read again after a crash or a rebalance, by what became of them: answered (their end stands in the "
    "log, no model is called) or generated (again, or for the first time).",
    ["outcome"],
)
ROUTE_CHOICES = Counter(
    "penstock_route_choices",
    "Requests by the target that they ask first, and why that one.",
    ["route", "target", "reason"],
)
CANARY_REQUESTS = Counter(
    "penstock_canary_requests",
    "Requests of a route with a target on trial, by arm: stable or canary.",
    ["route", "arm"],
)
SHADOW_CALLS = Counter(
    "penstock_shadow_calls",
    "Calls of targets in shadow: answered, failed, late (the request had waited too long, or its deadline had passed) or "
    "broken (inference could not make the call).",
    ["route", "target", "outcome"],
)
LEFT_ALONE = Counter(
    "penstock_targets_left_alone",
    "Requests that did not ask a target whose circuit is open.",
    ["route", "target"],
)
CIRCUIT_STATE = Gauge(
    "penstock_circuit_state",
    "Circuit of a target in this process: 0 closed, 1 half-open (the next call tries it, or one does), 2 open.",
    ["backend", "model", "endpoint"],
)
CIRCUIT_CHANGES = Counter(
    "penstock_circuit_changes", "Changes of circuits, by what they became.", ["backend", "model", "endpoint", "state"]
)
ALERT_QUEUE = Gauge("penstock_alert_messages_waiting", "Messages that gather or are tried.", ["receiver"])
ALERT_OLDEST_SECONDS = Gauge("penstock_alert_oldest_seconds", "Time that the oldest of them has waited.", ["receiver"])
ALERT_DELIVERIES = Counter(
    "penstock_alert_tries", "Tries to deliver alerts, by how they ended.", ["receiver", "outcome"]
)
