"""A target in shadow against what was served: the same requests, pair by pair. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist, fmean

from penstock.contracts.records import Completion, Context, Cost, Evaluation, Purpose

__all__ = ["CONFIDENCE", "LEAST_CLUSTERS", "Difference", "ShadowPairs", "Shadowed"]

CONFIDENCE = 0.95
LEAST_CLUSTERS = 30
"""Users (conversations, requests) that differences must come from before there is an interval."""

_Request = tuple[str, str]
"""Team and request_id."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of requests that both answered, in its own unit.

    Attributes:
        pairs: requests of which both figures are known.
        low: lower end of the interval of ``mean``, at :data:`CONFIDENCE` for one look; None where there is too little to
            say, or nothing differs.
    """

    metric: str
    pairs: int
    served: float
    shadow: float
    low: float | None = None
    high: float | None = None

    @property
    def mean(self) -> float:
        """Mean of the shadow's less that of what was served."""
        return self.shadow - self.served


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a target in shadow did: ``requests`` that were served by a model too, of the ``calls`` it had."""

    target: str
    calls: int
    requests: int
    differences: tuple[Difference, ...]


@dataclass(slots=True)
class _Call:
    request: _Request
    unit: str
    target: str | None
    figures: dict[str, float]


@dataclass(slots=True)
class ShadowPairs:
    """Gathers what the log says of one route. What stands there twice counts once, and the order does not matter.

    A request that a cache answered has no call to compare with, and one that ended without a completion has none either.
    """

    route: str
    _calls: dict[str, _Call] = field(default_factory=dict)
    _further: dict[str, dict[str, float]] = field(default_factory=dict)

    def take(self, record: Completion | Evaluation | Cost) -> None:
        """Take one event."""
        context = record.context
        if context.route != self.route or context.purpose not in (Purpose.SERVE, Purpose.SHADOW):
            return
        match record:
            case Completion():
                self._take_call(record)
            case Evaluation():
                scores = {f"{s.subject}.{s.name}": s.score for s in record.scores if s.subject == "answer"}
                self._further.setdefault(record.causation_id, {}).update(scores)
            case Cost() if record.amount is not None and record.kind != "embedding":
                self._further.setdefault(record.causation_id, {})["cost"] = float(record.amount)
            case _:
                return

    def _take_call(self, record: Completion) -> None:
        shadow = record.kind == "shadow"
        if not shadow and (record.kind != "completion" or record.attempt):
            return
        figures = {"failed": float(record.error is not None)}
        if record.error is None:
            figures["model_ms"] = record.timings.model_us / 1000
            figures["output_tokens"] = float(record.usage.output_tokens)
        request = record.tenant_id, record.request_id
        target = record.target or record.model if shadow else None
        self._calls[record.event_id] = _Call(request, _unit(record.context, request), target, figures)

    def results(self) -> list[Shadowed]:
        """Return each target in shadow, by name."""
        served: dict[_Request, dict[str, float]] = {}
        shadows: dict[str, list[tuple[_Call, Mapping[str, float]]]] = {}
        for identity, call in self._calls.items():
            figures = {**call.figures, **self._further.get(identity, {})}
            if call.target is None:
                served[call.request] = figures
            else:
                shadows.setdefault(call.target, []).append((call, figures))
        found = []
        for target, calls in sorted(shadows.items()):
            paired = [(call.unit, served[call.request], own) for call, own in calls if call.request in served]
            names = {name for _, first, own in paired for name in first.keys() & own.keys()}
            differences = (
                _difference(name, [(u, first[name], own[name]) for u, first, own in paired if name in first and name in own])
                for name in sorted(names, key=_order)
            )  # fmt: skip
            found.append(Shadowed(target, len(calls), len(paired), tuple(differences)))
        return found


_FIRST = ("failed", "model_ms", "cost", "output_tokens")


def _order(metric: str) -> tuple[int, str]:
    return (_FIRST.index(metric) if metric in _FIRST else len(_FIRST), metric)


def _unit(context: Context, request: _Request) -> str:
    """Return whose requests depend on each other: the user's, else the conversation's."""
    own = context.user_id or context.conversation_id
    return "\x1f".join((request[0], own) if own else (*request, ""))


def _difference(metric: str, pairs: Iterable[tuple[str, float, float]]) -> Difference:
    """Return means and the interval of their difference; its variance is that of users (Liang and Zeger 1986)."""
    of_unit: dict[str, list[float]] = {}
    served, shadow = [], []
    for unit, first, own in pairs:
        of_unit.setdefault(unit, []).append(own - first)
        served.append(first)
        shadow.append(own)
    count, units = len(served), len(of_unit)
    plain = Difference(metric, count, fmean(served), fmean(shadow))
    if units < LEAST_CLUSTERS:
        return plain
    apart = (sum(each) - len(each) * plain.mean for each in of_unit.values())
    error = math.sqrt(sum(each * each for each in apart) * units / (units - 1)) / count
    if error == 0:
        return plain
    normal = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    # Student's t with units - 1 degrees of freedom, to the second term of its expansion.
    reach = (normal + (normal**3 + normal) / (4 * (units - 1))) * error
    return Difference(metric, count, plain.served, plain.shadow, plain.mean - reach, plain.mean + reach)
