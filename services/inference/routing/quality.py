"""How good the answers of models are on a route, as they are scored: for quality floors."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from aiokafka.errors import KafkaError
from penstock.bus import KafkaUnavailable, Message, Transport
from penstock.bus.following import Following
from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.contracts.codec import Codec
from penstock.contracts.records import Evaluation, Purpose
from penstock.telemetry import get_logger

__all__ = ["LEAST_SCORES", "LOOK_BACK", "MeasuredQuality", "follow_scores"]

log = get_logger(__name__)

LEAST_SCORES = 30.0
"""Scores, faded ones in part, from which their mean counts. A mean of 30 scores between 0 and 1 has a standard error below
0.09 (Popoviciu's inequality)."""
HALF_LIFE_S = 3600.0
"""After so many seconds a score counts half."""
LOOK_BACK = timedelta(hours=1)
"""Scores are read from so long before the reader begins."""
# A route's models are few; what endpoints call them is theirs to say.
_MOST_MODELS = 64
_TOPIC = "evaluations"
_RETRY_S = 10.0
_CHECK_S = 1.0
# What providers write behind a model's name for one build of it: gpt-4o-mini-2024-07-18, claude-sonnet@20250514. A number
# of one or two digits is part of a name: support-2 is no build of support.
_BUILD = re.compile(r"[-@:]\d{3}[\d.-]*")


@dataclass(slots=True)
class _Mean:
    """Sums of faded scores, as of ``at``, seconds since the epoch."""

    total: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def faded(self, at: float) -> float:
        return float(0.5 ** (max(0.0, at - self.at) / HALF_LIFE_S))

    def add(self, score: float, at: float) -> None:
        kept = self.faded(at)
        late = 0.5 ** (max(0.0, self.at - at) / HALF_LIFE_S)
        self.total, self.weight = self.total * kept + score * late, self.weight * kept + late
        self.at = max(self.at, at)


class MeasuredQuality:
    """Means of scores by route, model and score. Nothing of a text is kept."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], dict[str, _Mean]] = {}

    def take(self, evaluation: Evaluation, wanted: Mapping[str, str]) -> None:
        """Take the scores of one result.

        Args:
            wanted: the score that counts on each route that has a quality floor, as ``subject.name``.
        """
        route, model = evaluation.context.route, evaluation.model
        name = wanted.get(route)
        if model is None or name is None or evaluation.context.purpose != Purpose.SERVE:
            return
        for score in evaluation.scores:
            if f"{score.subject}.{score.name}" == name:
                means = self._means.setdefault((route, name), {})
                mean = means.pop(model, None) or _Mean()
                mean.add(score.score, evaluation.occurred_at.timestamp())
                means[model] = mean  # the newest last
                if len(means) > _MOST_MODELS:
                    del means[next(iter(means))]

    def mean(self, route: str, score: str, models: Iterable[str], at: float) -> float | None:
        """Return the mean of a score over ``models``; None where fewer than :data:`LEAST_SCORES` are known.

        Args:
            models: names that the model goes by. One build of a model counts as the model.
            at: seconds since the epoch.
        """
        names = frozenset(models)
        total = weight = 0.0
        for model, mean in self._means.get((route, score), {}).items():
            if _is_one_of(model, names):
                kept = mean.faded(at)
                total, weight = total + mean.total * kept, weight + mean.weight * kept
        return total / weight if weight >= LEAST_SCORES else None

    def clear(self) -> None:
        """Forget everything: it is read again."""
        self._means.clear()

    def trusts(self, route: Route, target: Target, models: Iterable[str], at: float) -> bool:
        """Return whether ``target`` meets the quality floor of ``route``: by what was measured, else by what is configured.

        Args:
            models: names that its model has gone by, besides the route's.
        """
        floor = route.quality_floor
        if floor is None:
            return True
        measured = self.mean(route.name, floor.score, (target.model, *models), at)
        quality = target.quality if measured is None else measured
        return quality is not None and quality >= floor.at_least


def _is_one_of(model: str, names: frozenset[str]) -> bool:
    return model in names or any(model.startswith(name) and _BUILD.fullmatch(model, len(name)) for name in names)


async def follow_scores(
    transport: Transport,
    codec: Codec,
    wanted: Callable[[], Mapping[str, str]],
    quality: MeasuredQuality,
    clock: Clock,
    stopping: asyncio.Event,
) -> None:
    """Read the topic ``evaluations`` into ``quality`` while some route has a quality floor, until ``stopping`` is set.

    A broker that is away stops nobody: what is known stays, and fades.

    Args:
        wanted: returns the score that counts on each route that has a quality floor.
    """
    while not stopping.is_set():
        if not wanted():
            await _pause(stopping, _CHECK_S)
            continue
        try:
            await _read(transport, codec, wanted, quality, clock, stopping)
        except (KafkaUnavailable, KafkaError) as error:
            log.warning("scores cannot be read: quality floors go by what is known", cause=str(error))
            await _pause(stopping, _RETRY_S)


async def _read(
    transport: Transport,
    codec: Codec,
    wanted: Callable[[], Mapping[str, str]],
    quality: MeasuredQuality,
    clock: Clock,
    stopping: asyncio.Event,
) -> None:
    """Read from an hour ago on until no route has a floor, another score counts on one, or ``stopping`` is set."""
    reading = dict(wanted())
    reader = await transport.read([_TOPIC], since_ms=int((clock.now() - LOOK_BACK).timestamp() * 1000))
    quality.clear()
    enough = asyncio.Event()

    def take(messages: Sequence[Message]) -> None:
        for message in messages:
            record = codec.readable(message.topic, message.value)
            if isinstance(record, Evaluation):
                quality.take(record, reading)
        if stopping.is_set() or wanted() != reading:
            enough.set()

    following = Following(reader, take)
    stopped = asyncio.ensure_future(stopping.wait())
    stopped.add_done_callback(lambda _: enough.set())
    try:
        await following.follow(enough)
    finally:
        stopped.cancel()
        await following.close()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
