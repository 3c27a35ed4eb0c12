"""The shell of evaluation: Faust agents, each a pure processor over a table of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from penstock.clock import Clock
from penstock.config.plane import ConfigPlane
from penstock.contracts.codec import Codec
from penstock.stateful import (
    Checkpointing,
    FaustWorker,
    IdLimits,
    Logic,
    StallGuard,
    StatefulProcessor,
    faust_settings,
    partition_count,
)
from penstock.stateful.protocols import Output, TableLike

from services.evaluation.core.pricing import pricing
from services.evaluation.core.spend import spending
from services.evaluation.core.watch import watching
from services.evaluation.experiments.core import experiments
from services.evaluation.feedback.core import SOURCES as FEEDBACK_SOURCES
from services.evaluation.feedback.core import feedback_logic
from services.evaluation.feedback.joining import Featuriser
from services.evaluation.judging.core import judging
from services.evaluation.learning import Learner, learning
from services.evaluation.settings import Settings

__all__ = ["GROUP", "Classifiers", "Declared", "declare", "evaluation_worker", "processors"]

GROUP = "evaluation"


@dataclass(frozen=True)
class Classifiers:
    """The classifiers that learn from labels, by name.

    Attributes:
        featurisers: make of a labelled text what travels.
        learners: learn from it.
    """

    featurisers: Mapping[str, Featuriser]
    learners: Mapping[str, Learner[Any]]


def processors(
    config: ConfigPlane, classifiers: Classifiers, settings: Settings, partitions: int
) -> dict[str, tuple[Sequence[str], Logic[Any, Any]]]:
    """Return each processor's source topics and logic by its name; ``partitions`` are those of ``judge-tasks``."""

    def threshold_of(evaluator: str) -> float | None:
        entry = config.evaluator(evaluator)
        return entry.threshold if entry is not None else None

    return {
        "pricing": (("completions", "documents-indexed"), pricing(config.price)),
        "spend": (("costs",), spending(config.team, settings.cost_watch_rules())),
        "watching": (("evaluations",), watching(settings.watch_rules(), config.team)),
        "feedback": (
            FEEDBACK_SOURCES,
            feedback_logic(settings.feedback_rules(), classifiers.featurisers, threshold_of),
        ),
        "learning": (("labels", "model-commands"), learning(classifiers.learners, settings.learning_rules())),
        "judging": (("judge-tasks", "llm-results"), judging(config, partitions)),
        "experiments": (("experiment-observations",), experiments(config.experiment)),
    }


@dataclass(frozen=True)
class Declared:
    """The agents of one Faust app.

    Attributes:
        tables: each processor with its table.
        sources: the topics that each changelog holds the state of.
    """

    tables: dict[StatefulProcessor[Any, Any], TableLike | None]
    sources: dict[str, Sequence[str]]


def declare(
    app: faust.App,
    logics: Mapping[str, tuple[Sequence[str], Logic[Any, Any]]],
    partitions: Mapping[str, int],
    *,
    codec: Codec,
    output: Output,
    clock: Clock,
    guard: StallGuard,
    checkpointing: Checkpointing,
) -> Declared:
    """Declare on ``app`` an agent and a table for each processor, by name."""
    declared = Declared({}, {})
    for name, (topics, logic) in logics.items():
        table = app.Table(name, key_type=bytes, value_type=bytes, partitions=partitions[name])
        processor = StatefulProcessor(
            name,
            logic,
            group=GROUP,
            codec=codec,
            output=output,
            table=table,
            clock=clock,
            guard=guard,
            checkpointing=checkpointing,
        )
        _declare_agent(app, name, topics, processor)
        declared.tables[processor] = table
        declared.sources[table.changelog_topic.get_topic_name()] = topics
    return declared


async def evaluation_worker(
    settings: Settings,
    *,
    config: ConfigPlane,
    classifiers: Classifiers,
    codec: Codec,
    output: Output,
    clock: Clock,
    ready: Callable[[], None],
) -> FaustWorker:
    """Declare the agents and tables and return the worker that runs them; ``ready`` is called when they are restored.

    Raises:
        penstock.stateful.PartitionMismatch: a topic is missing, or two that are joined differ in partitions.
    """
    guard = StallGuard(clock, limit_s=settings.session_timeout_ms / 1000 * 0.75)
    logics = processors(config, classifiers, settings, await partition_count(settings, ["judge-tasks"]))
    partitions = {name: await partition_count(settings, topics) for name, (topics, _) in logics.items()}
    app = faust.App(GROUP, **faust_settings(settings, max(partitions.values()), faust.SASLCredentials))
    declared = declare(
        app,
        logics,
        partitions,
        codec=codec,
        output=output,
        clock=clock,
        guard=guard,
        checkpointing=Checkpointing(
            interval_s=settings.checkpoint_interval_s,
            # Most keys are remembered results, which are read again only where feedback comes.
            max_clean_states=2_000,
            # A writer that was down for hours and then repeats itself must not be paid twice.
            recent_ids=IdLimits(capacity=32_768, ttl_s=86_400.0),
            dead_letter_ratio=settings.dlq_max_ratio,
            dead_letter_window=settings.dlq_min_messages,
        ),
    )
    return FaustWorker(app, declared.tables, sources=declared.sources, settings=settings, guard=guard, ready=ready)


def _declare_agent(app: faust.App, name: str, topics: Sequence[str], processor: StatefulProcessor[Any, Any]) -> None:
    async def agent(stream: Any) -> AsyncIterator[None]:
        async for _ in processor.process(stream):
            yield

    app.agent(app.topic(*topics, key_type=bytes, value_type=bytes), name=name, concurrency=1)(agent)
