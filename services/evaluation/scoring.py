"""The hop that scores what passes: results for what their texts are like, completions for how good they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from typing import Any

from penstock.bus import Emit, Event, Hop, Outcome, Transient
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Completion, LlmResult, Purpose, Score
from penstock.embedding.protocol import EmbedderUnavailable
from penstock.telemetry import metrics

from services.evaluation.evaluators.protocol import Evaluator, Exchange
from services.evaluation.evaluators.runner import by_config, evaluate
from services.evaluation.exchanges import judged_completion, judged_result, scored

__all__ = ["GROUP", "SOURCES", "Scorer", "scoring_hop"]

GROUP = "evaluation-scores"
SOURCES = ("llm-results", "completions")
# A batch keeps a thread busy; a rebalance waits for it.
_BATCH = 32

Toxicity = Callable[[datetime], Sequence[Evaluator]]
"""The classifiers in force for what occurred at an instant; the same objects for the same version."""
Asking = Callable[[Completion], Sequence[Emit]]
"""What models are asked about an answer, by rubric."""


class Scorer:
    """Runs the evaluators.

    Args:
        quality: evaluators of answers, run on completions.
        toxicity: evaluators of texts, run on results: by the instant of the result and not by when it is read, so that a
            replay says the same.
        config: rates and thresholds.
    """

    def __init__(self, quality: Sequence[Evaluator], toxicity: Toxicity, config: ConfigPlane) -> None:
        self._quality = quality
        self._toxicity = toxicity
        self._entry = config.evaluator
        self._sampled = by_config(config.evaluator)

    def scores(self, records: Sequence[Completion | LlmResult]) -> list[list[Score]]:
        """Return the scores of each record; none where it is not to be scored.

        Raises:
            EmbedderUnavailable: the embedder is away for now.
        """
        found: list[list[Score]] = [[] for _ in records]
        groups: dict[tuple[int, ...], tuple[Sequence[Evaluator], list[tuple[int, Exchange]]]] = {}
        for row, record in enumerate(records):
            exchange = judged_result(record) if isinstance(record, LlmResult) else judged_completion(record)
            if exchange is not None:
                run = self._toxicity(record.occurred_at) if isinstance(record, LlmResult) else self._quality
                groups.setdefault(tuple(map(id, run)), (run, []))[1].append((row, exchange))
        for run, chosen in groups.values():
            exchanges = [exchange for _, exchange in chosen]
            scores = evaluate(run, exchanges, sampled=self._sampled, entry=self._entry)
            for (row, _), each in zip(chosen, scores, strict=True):
                found[row] = each
        return found


def scoring_hop(scorer: Scorer, asking: Asking, executor: Executor | None = None) -> Hop:
    """Return the hop from results and completions to evaluations, and to the tasks of models that judge.

    Args:
        scorer: the evaluators.
        asking: gives the tasks about an answer.
        executor: runs the evaluators beside the event loop; None for the loop's own.
    """

    async def handle(events: Sequence[Event[Any]]) -> Sequence[Outcome]:
        records = [event.record for event in events]
        try:
            scores = await asyncio.get_running_loop().run_in_executor(executor, scorer.scores, records)
        except EmbedderUnavailable as error:
            raise Transient(str(error)) from error
        return [_outcome(record, each) for record, each in zip(records, scores, strict=True)]

    def _outcome(record: Completion | LlmResult, scores: Sequence[Score]) -> Outcome:
        if record.context.purpose == Purpose.SERVE:
            for score in scores:
                metrics.EVALUATOR_SCORES.labels(score.name, score.subject).observe(score.score)
        emits = scored(record, scores)
        if isinstance(record, Completion):
            emits += asking(record)
        return emits

    return Hop(service="evaluation", group=GROUP, topics=SOURCES, handler=handle, max_batch=_BATCH)
