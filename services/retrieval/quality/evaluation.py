"""Runs a question set through the configurations and puts the report together."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.embedding import Embedder, EmbeddingSettings

from services.retrieval.chunking import ChunkLimits
from services.retrieval.quality.configurations import Configuration
from services.retrieval.quality.question_sets import QuestionSet
from services.retrieval.quality.ranking import Advance, Index, Ranked, open_index, rank_by_bm25
from services.retrieval.quality.report import (
    Report,
    Requirement,
    SetFigures,
    System,
    attached,
    compared,
    floors,
    latency,
    means,
    regressions,
    unmet,
    values_of,
)

__all__ = ["Earlier", "Evaluated", "Plan", "evaluated"]

Embedders = Callable[[EmbeddingSettings], Embedder]
Watched = Callable[[str, int], Advance]
"""Is told what begins, and of how many; returns what is told of each step."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A system of an earlier report, what it is called here, and the version of the questions that it was asked."""

    name: str
    system: System
    version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for.

    Attributes:
        configurations: the first is what is judged; the others are compared with it.
        cutoffs: k of recall@k, ascending.
        margin: a fall by less is no regression.
        seed: of the resampling.
    """

    configurations: Sequence[Configuration]
    cutoffs: Sequence[int] = (1, 5, 10)
    requirements: Sequence[Requirement] = ()
    earlier: Earlier | None = None
    margin: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A report, and the rankings of the judged configuration."""

    report: Report
    ranked: list[Ranked]


async def evaluated(
    plan: Plan, questions: QuestionSet, folder: Path, embedder: Embedders, watched: Watched
) -> Evaluated:
    """Rank the questions by every configuration and compare.

    Args:
        folder: where the indexes lie, one for each embedder and size of chunks; what they hold is not embedded again.
        embedder: makes one of settings.

    Raises:
        NotRanked, StoreMisfit, EmbedderError, ConfigurationError: it cannot be done; the message says why.
    """
    systems: list[System] = []
    rankings: list[list[Ranked]] = []
    async with AsyncExitStack() as opened:
        indexes: dict[str, tuple[Index, str]] = {}
        for configuration in plan.configurations:
            if configuration.method == "bm25":
                system, ranked = await asyncio.to_thread(_by_bm25, configuration, questions, plan)
            else:
                made = embedder(configuration.embedding_settings())
                limits = configuration.chunks.limits()
                key = _key(made, limits)
                if key not in indexes:
                    advance = watched("documents", len(questions.corpus))
                    entering = open_index(folder / key, questions.corpus, made, limits, advance)
                    indexes[key] = await opened.enter_async_context(entering), made.name
                system, ranked = await _by_service(configuration, questions, plan, *indexes[key], watched)
            systems.append(system)
            rankings.append(ranked)
    first, *others = systems
    comparisons = [compared((other.name, other.values), (first.name, first.values), plan.seed) for other in others]
    problems = unmet(first, plan.requirements)
    if plan.earlier is not None:
        before = compared((plan.earlier.name, plan.earlier.system.values), (first.name, first.values), plan.seed)
        comparisons.append(before)
        problems += regressions(before, plan.margin)
    figures = SetFigures(
        documents=len(questions.corpus),
        questions=len(questions.questions),
        strays=len(questions.strays),
        unjudged=questions.unjudged,
        missing=questions.missing,
        version=questions.version,
    )
    report = Report(
        made_at=datetime.now(UTC),
        question_set=figures,
        systems=systems,
        comparisons=comparisons,
        problems=problems,
    )
    return Evaluated(report, rankings[0])


def _key(embedder: Embedder, limits: ChunkLimits) -> str:
    """Return the folder of an index: chunks of other sizes, or of another embedder, are other chunks."""
    sizes = f"{limits.max_tokens}-{limits.overlap_tokens}-{limits.min_tokens}"
    return f"{sizes}-{hashlib.sha256(json.dumps([embedder.name, embedder.dimension]).encode()).hexdigest()[:12]}"


async def _by_service(
    configuration: Configuration,
    asked: QuestionSet,
    plan: Plan,
    index: Index,
    embedder: str,
    watched: Watched,
) -> tuple[System, list[Ranked]]:
    rules, candidates = configuration.rules(), configuration.candidates
    everything = [*asked.questions, *asked.strays]
    count = len(asked.questions)
    # Ranked first: the questions that are timed then find caches and memory as they are in a service that runs.
    ranked = await index.rank(everything, rules, candidates, watched(f"{configuration.name}: ranked", len(everything)))
    found, took = await index.attach(
        everything, rules, candidates, watched(f"{configuration.name}: timed", len(everything))
    )
    values = values_of(asked.questions, ranked[:count], plan.cutoffs)
    system = System(
        name=configuration.name,
        configuration=_said(configuration),
        embedder=embedder,
        indexed=index.indexed,
        means=means(values, plan.seed),
        latency_ms=latency(took),
        attached=attached(asked.questions, found[:count], found[count:]),
        floors=floors(asked.questions, ranked[:count], ranked[count:], rules.top_k),
        values=values,
    )
    return system, ranked[:count]


def _by_bm25(configuration: Configuration, asked: QuestionSet, plan: Plan) -> tuple[System, list[Ranked]]:
    ranked, took = rank_by_bm25(asked.corpus, asked.questions)
    values = values_of(asked.questions, ranked, plan.cutoffs)
    system = System(
        name=configuration.name,
        configuration={"method": "bm25"},
        means=means(values, plan.seed),
        latency_ms=latency(took),
        values=values,
    )
    return system, ranked


def _said(configuration: Configuration) -> dict[str, Any]:
    said = configuration.model_dump(mode="json", exclude={"name"})
    # A key of an endpoint has no place in a report.
    said["embedding"] = {name: value for name, value in said["embedding"].items() if "key" not in name}
    return said
