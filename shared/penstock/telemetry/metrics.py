"""Every metric of Penstock, in one place: a name is registered here before it is used.

Labels are small, closed sets (service, topic, status, model, team); never a request's id or a user's text.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ALERT_DELIVERIES", "ALERT_OLDEST_SECONDS", "ALERT_QUEUE", "BATCH_SECONDS", "BROKEN_CALLS", "CACHE_LOOKUPS",
    "CACHE_SECONDS", "CONSUMED", "DEAD_LETTERS", "END_TO_END_SECONDS", "ESTIMATED_USAGE", "EVALUATOR_FAILURES",
    "EVALUATOR_SECONDS", "EXPERIMENT_SKIPS", "FINDINGS", "GROUNDED", "INDEXED_CHUNKS", "IN_FLIGHT", "MODEL_SECONDS",
    "PRODUCED", "REFUSED", "RETRIES", "REVIEWS", "SCANNER_FAILURES", "SCREENED", "SCREEN_SECONDS", "TOKENS", "UP",
]  # fmt: skip

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
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
END_TO_END_SECONDS = Histogram(
    "penstock_end_to_end_seconds", "From the producer's request to its release.", ["status"], buckets=_SLOW
)
MODEL_SECONDS = Histogram("penstock_model_seconds", "Time of one model call.", ["backend", "model"], buckets=_SLOW)
GROUNDED = Counter("penstock_grounded_requests", "Requests that left retrieval, by what was found.", ["grounding"])
INDEXED_CHUNKS = Counter("penstock_indexed_chunks", "Chunks embedded for, or removed from the store.", ["action"])
SCREENED = Counter("penstock_screened_texts", "Events judged by guardrails.", ["stage", "action"])
FINDINGS = Counter("penstock_findings", "Finds that counted.", ["stage", "scanner", "action"])
SCANNER_FAILURES = Counter("penstock_scanner_failures", "Scanners that failed or had no time.", ["stage", "scanner"])
EVALUATOR_FAILURES = Counter("penstock_evaluator_failures", "Scores left out: the evaluator failed.", ["evaluator"])
EVALUATOR_SECONDS = Histogram(
    "penstock_evaluator_seconds", "Time of scoring one batch.", ["evaluator"], buckets=(0.0001, 0.0002, *_FAST)
)
REVIEWS = Counter("penstock_reviews", "Texts held for a person: held, approved, denied, overdue.", ["outcome"])
SCREEN_SECONDS = Histogram("penstock_screen_seconds", "Time of scanning one event.", ["stage"], buckets=_FAST)
CACHE_LOOKUPS = Counter(
    "penstock_cache_lookups", "Answers looked for: hit, miss, unavailable or unreadable.", ["cache", "outcome"]
)
CACHE_SECONDS = Histogram(
    "penstock_cache_seconds", "Time of looking for one answer.", ["cache"], buckets=(0.0001, 0.0002, 0.0003, *_FAST)
)
ESTIMATED_USAGE = Counter(
    "penstock_estimated_usage", "Model calls whose tokens were estimated: nobody gave them.", ["backend", "model"]
)
BROKEN_CALLS = Counter(
    "penstock_broken_calls", "Model calls that gave no answer and may be charged for.", ["backend", "model"]
)
TOKENS = Counter("penstock_tokens", "Tokens, by direction.", ["model", "direction"])
ALERT_QUEUE = Gauge("penstock_alert_messages_waiting", "Messages that gather or are tried.", ["receiver"])
ALERT_OLDEST_SECONDS = Gauge("penstock_alert_oldest_seconds", "Time that the oldest of them has waited.", ["receiver"])
ALERT_DELIVERIES = Counter(
    "penstock_alert_tries", "Tries to deliver alerts, by how they ended.", ["receiver", "outcome"]
)
