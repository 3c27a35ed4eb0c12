"""Runs evaluators over exchanges: what the stream, golden sets and `penstock evaluate score` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec
from penstock.config.evaluators import Evaluator as EvaluatorEntry
from penstock.contracts.records import Score
from penstock.embedding.protocol import EmbedderUnavailable
from penstock.telemetry import get_logger
from penstock.telemetry.metrics import EVALUATOR_FAILURES, EVALUATOR_SECONDS

from services.evaluation.evaluators.protocol import Evaluator, Exchange, Judged

__all__ = ["Entry", "Failed", "InvalidJudgement", "Sampled", "by_config", "evaluate", "report_failure", "takes"]

Sampled = Callable[[str, Exchange], bool]
"""Whether the evaluator of this name scores an exchange."""
Entry = Callable[[str], EvaluatorEntry | None]
"""The configuration of an evaluator by its name; None where there is none."""
Failed = Callable[[str, Exchange, Exception], None]
"""Is told the name of an evaluator that failed, on what, and how."""

_PLACES = 6
_LABELS = ("low", "high")
_log = get_logger(__name__)


class InvalidJudgement(Exception):
    """An evaluator returned what is no judgement; the message says what and what belongs there."""


def takes(request_id: str, evaluator: str, rate: float) -> bool:
    """Return whether the request falls into the share ``rate`` (0 to 1) that ``evaluator`` scores.

    Decided by a hash of both, so that a replay scores the same requests; those of two evaluators are independent, and a
    higher rate keeps every request of a lower one.
    """
    digest = blake2b(request_id.encode("utf-8", "surrogatepass"), key=_key(evaluator), digest_size=8).digest()
    return int.from_bytes(digest, "big") < rate * 2**64


def by_config(entry: Entry) -> Sampled:
    """Return a sampling that follows the configured rate of each evaluator and route; without one, all are scored."""

    def sampled(name: str, exchange: Exchange) -> bool:
        found = entry(name)
        return found is None or takes(exchange.request_id, name, found.rate_of(exchange.route))

    return sampled


def report_failure(name: str, exchange: Exchange, error: Exception) -> None:
    """Count a failed evaluation and log its cause; never a text."""
    EVALUATOR_FAILURES.labels(name).inc()
    cause = str(error) if isinstance(error, InvalidJudgement) else ""
    _log.warning(
        "evaluator failed: its score is left out",
        evaluator=name,
        request_id=exchange.request_id,
        error=type(error).__name__,
        cause=cause,
        at=_place(error),
    )


def evaluate(
    evaluators: Sequence[Evaluator],
    exchanges: Sequence[Exchange],
    *,
    sampled: Sampled | None = None,
    entry: Entry | None = None,
    failed: Failed = report_failure,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[Score]]:
    """Return the scores of each exchange, in the order of ``evaluators``.

    An evaluator that fails costs its own score only: a batch that it fails on is given to it one exchange at a time, and
    what fails then is left out and reported.

    Args:
        evaluators: what to run.
        exchanges: what to score; evaluators see all of a batch at once.
        sampled: which evaluator scores what; None: each scores all.
        entry: configuration, for the threshold of each evaluator where it sets one; None: all as they ship.
        failed: is told of each failure.
        clock: seconds, for the latency: that of a batch in equal shares.

    Raises:
        EmbedderUnavailable: the embedder is away for now; the same call may succeed later.
    """
    scores: list[list[Score]] = [[] for _ in exchanges]
    for one in evaluators:
        rows = [row for row, exchange in enumerate(exchanges) if sampled is None or sampled(one.name, exchange)]
        if not rows:
            continue
        started = clock()
        judged = _judged(one, [exchanges[row] for row in rows], failed)
        took = max(0.0, clock() - started)
        EVALUATOR_SECONDS.labels(one.name).observe(took)
        configured = entry(one.name) if entry is not None else None
        threshold = configured.threshold if configured is not None else None
        for row, said in zip(rows, judged, strict=True):
            if said is not None:
                scores[row].append(_score(one, said, threshold, round(took * 1e6 / len(rows))))
    return scores


def _judged(one: Evaluator, exchanges: Sequence[Exchange], failed: Failed) -> list[Judged | None]:
    try:
        return _checked(one.evaluate(exchanges), len(exchanges))
    except EmbedderUnavailable:
        raise
    except Exception as error:
        if len(exchanges) == 1:
            failed(one.name, exchanges[0], error)
            return [None]
    return [said for exchange in exchanges for said in _judged(one, [exchange], failed)]


def _checked(said: Sequence[Judged | None], count: int) -> list[Judged | None]:
    results = list(said)
    if len(results) != count:
        raise InvalidJudgement(f"returned {len(results)} results for {count} exchanges; return one for each, in order")
    return [None if result is None else _valid(result) for result in results]


def _valid(said: Judged) -> Judged:
    """Return what an evaluator said in plain types: what cannot be encoded would cost the event its other scores.

    Raises:
        InvalidJudgement: it is no judgement.
    """
    if not isinstance(said, Judged):
        raise InvalidJudgement(f"returned a {type(said).__name__}; return a Judged, or None")
    try:
        score = float(said.score)
        plain = {
            "score": score,
            "label": said.label,
            "reason": said.reason,
            "sentences": tuple(said.sentences),
            "categories": {name: float(value) for name, value in said.categories.items()},
            "features": {name: float(value) for name, value in said.features.items()},
        }
        valid = msgspec.convert(plain, Judged)
    except (TypeError, ValueError, AttributeError) as error:  # msgspec's is a ValueError
        raise InvalidJudgement(f"returned a Judged with fields of other types: {error}") from error
    if not 0 <= score <= 1:  # nor is NaN
        raise InvalidJudgement(f"scored {score!r}; a score is a number from 0 to 1")
    return valid


def _score(one: Evaluator, said: Judged, threshold: float | None, latency_us: int) -> Score:
    score = round(said.score, _PLACES)
    label = said.label
    own: float | None = getattr(one, "threshold", None)
    labels: tuple[str, str] = getattr(one, "labels", _LABELS)
    if threshold is not None:
        label = labels[score >= threshold]
    elif own is not None and not label:
        label = labels[score >= own]
    return Score(
        name=one.name,
        subject=one.subject,
        score=score,
        label=label,
        version=one.version,
        features=dict(said.features),
        categories=dict(said.categories),
        sentences=list(said.sentences),
        reason=said.reason,
        latency_us=latency_us,
    )


def _key(evaluator: str) -> bytes:
    return blake2b(evaluator.encode("utf-8"), digest_size=32).digest()


def _place(error: Exception) -> str:
    """Return file and line where ``error`` was raised, so that it is found without its message, which may quote a text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
