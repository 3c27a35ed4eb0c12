"""Routing by weight, cost or speed, past targets whose circuit is open, with what their calls teach."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from penstock.clock import Clock
from penstock.config.kinds import Route, Target
from penstock.config.prices import Price
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import GroundedRequest, TargetFailure, Usage
from penstock.money import charge
from penstock.telemetry import get_logger, metrics

from services.inference.core import Answered
from services.inference.prompt import text_bytes
from services.inference.routing.choosing import CONFIDENCE, Candidate, Ranking, Reason, ranked
from services.inference.routing.endpoints import Endpoint, Endpoints, Known
from services.inference.routing.observed import HALF_LIFE_S, Fading
from services.inference.routing.protocol import Arms, Attempt, Choice, NoArms
from services.inference.routing.quality import MeasuredQuality
from services.inference.routing.weighted import order_targets

__all__ = ["Prices", "TargetRouting"]

log = get_logger(__name__)

# English text has about four bytes a token, by byte-level tokenizers.
_BYTES_A_TOKEN = 4
_UNKNOWN_OUTPUT_TOKENS = 512.0
"""Tokens that an answer is taken for where neither the request bounds it nor answers of its route are known."""
_MOST_OUTPUT_TOKENS = 1e6
_MOST_LENGTHS = 4096


class Prices(Protocol):
    """The part of the config plane that prices a call."""

    def price(self, model: str, at: datetime) -> Price | None: ...


class TargetRouting:
    """Chooses by weight, cost or speed, and leaves targets alone that fail. All of it is of this process."""

    def __init__(
        self, prices: Prices, clock: Clock, *, arms: Arms | None = None, quality: MeasuredQuality | None = None
    ) -> None:
        """Begin with closed circuits, knowing nothing.

        Args:
            arms: who says what a canary gets; None: nothing is on trial.
            quality: scores of answers; None: targets are as good as the configuration says.
        """
        self._prices = prices
        self._clock = clock
        self._arms = arms or NoArms()
        self._quality = quality or MeasuredQuality()
        self._endpoints = Endpoints(clock)
        self._lengths: dict[tuple[str, Endpoint | None], Fading] = {}
        self._unpriced: set[tuple[str, str]] = set()

    def choose(self, route: Route, request: GroundedRequest) -> Choice:
        """Return whom ``request`` asks: the canary where it falls to it, then the route's targets.

        A target whose circuit is open is left out. Where all are, nobody is asked: a request that waited for one of them
        would hold its place in the window for as long as they are away.
        """
        assignment = self._arms.assign(route, request)
        drawn = order_targets(route, request.request_id)
        canary = None if assignment is None else assignment.target
        asked = drawn if canary is None else [canary, *drawn]
        refused = [self._endpoints.left_alone(route, target) for target in asked]
        left_alone = [failure for failure in refused if failure is not None]
        shunned = {failure.target for failure in left_alone}
        stable = [target for target in drawn if target.label not in shunned]
        targets, reason = self._ordered(route, request, stable, drawn[0])
        if canary is not None and canary.label not in shunned:
            targets, reason = (canary, *targets), "canary"
        metrics.ROUTE_CHOICES.labels(route.name, targets[0].label if targets else "", reason).inc()
        for failure in left_alone:
            metrics.LEFT_ALONE.labels(route.name, failure.target).inc()
        context = request.context if assignment is None else assignment.context
        # What is cheapest or fastest is among those that are asked, if any is.
        expected = canary is not None or route.choice == "weighted" or not targets
        passed_over = next((place for place, failure in enumerate(refused) if failure is None), len(refused))
        return Choice(
            targets, context, left_alone, passed_over if expected else 0, first=asked[0] if expected else None
        )

    def begin(self, route: Route, target: Target) -> Attempt | TargetFailure:
        return self._endpoints.begin(route, target, lambda known, answer: self._answered(route, known, answer))

    def _ordered(
        self, route: Route, request: GroundedRequest, stable: Sequence[Target], drawn: Target
    ) -> tuple[Sequence[Target], Reason]:
        """Return the targets that are not left alone in the order in which they are asked, and why."""
        if not stable:
            return (), "none_left"
        if route.choice == "weighted":
            return stable, "weight" if stable[0] is drawn else "stands_in"
        if len(stable) == 1:
            return stable, "only_one"
        ranking = self._ranking(route, request, stable)
        return ranking.targets, ranking.reason

    def _ranking(self, route: Route, request: GroundedRequest, targets: Iterable[Target]) -> Ranking:
        assert route.choice != "weighted"
        now, clock = self._clock.now(), self._clock.monotonic()
        sizes = [text_bytes(request.sampling.tools or ""), *map(message_bytes, request.messages)]
        sizes += [text_bytes(passage.text) for passage in request.passages]
        prompt = sum(sizes) / _BYTES_A_TOKEN
        deadline = request.context.deadline_at
        left_s = None if deadline is None else (deadline - now).total_seconds()
        candidates = []
        for target in targets:
            known = self._endpoints.of(target)
            expected, longest = self._output_tokens(route, known.endpoint, request)
            seconds = known.latency.seconds(prompt, longest, CONFIDENCE, clock)
            stale = seconds is None or known.asked_at is None or clock - known.asked_at > HALF_LIFE_S
            candidates.append(
                Candidate(
                    target,
                    self._cost(route, target, prompt, expected * request.sampling.n, seconds, now),
                    seconds,
                    self._quality.trusts(route, target, [known.named] if known.named else [], now.timestamp()),
                    unknown=stale and known.in_flight == 0,
                )
            )
        return ranked(route.choice, candidates, left_s, _draw(request.request_id))

    def _output_tokens(self, route: Route, endpoint: Endpoint, request: GroundedRequest) -> tuple[float, float]:
        """Return how many tokens the answer is expected to have, and how many it hardly exceeds."""
        most = request.sampling.max_completion_tokens
        bound = float(most) if most is not None else _MOST_OUTPUT_TOKENS
        lengths = self._lengths.get((route.name, endpoint)) or self._lengths.get((route.name, None))
        mean, long = (None, None) if lengths is None else (lengths.mean(), lengths.quantile(CONFIDENCE))
        if mean is None or long is None:
            expected = _UNKNOWN_OUTPUT_TOKENS if most is None else bound
            return expected, expected
        return min(mean, bound), min(long, bound)

    def _cost(
        self, route: Route, target: Target, prompt: float, answer: float, seconds: float | None, now: datetime
    ) -> Decimal | None:
        """Return what a call is expected to cost, USD; None where its model has no price."""
        price = self._prices.price(target.model, now)
        if price is None:
            if (place := (route.name, target.model)) not in self._unpriced:
                self._unpriced.add(place)
                log.warning(
                    "a model without a price is never the cheapest: it comes after all that have one",
                    route=route.name,
                    model=target.model,
                    remedy="add it to infra/config/prices",
                )
            return None
        finite = 0.0 if seconds is None else min(seconds, target.timeout_s)
        usage = Usage(input_tokens=round(prompt), output_tokens=round(answer))
        return charge(price, usage, int(finite * 1e6)).total

    def _answered(self, route: Route, known: Known, answer: Answered) -> None:
        """Learn from an answer."""
        now, usage = self._clock.monotonic(), answer.usage
        output_tokens = round(usage.output_tokens / (1 + len(answer.alternatives)))
        known.latency.answered(usage.input_tokens, output_tokens, answer.model_us / 1e6, now)
        for key in ((route.name, known.endpoint), (route.name, None)):
            lengths = self._lengths.get(key)
            if lengths is None:
                if len(self._lengths) >= _MOST_LENGTHS:
                    del self._lengths[next(iter(self._lengths))]
                lengths = self._lengths[key] = Fading(1.0, _MOST_OUTPUT_TOKENS)
            lengths.add(output_tokens, now)


def _draw(request_id: str) -> float:
    """Return the number of a request, uniform from 0 to 1 and independent of its place among the weights."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"explore").digest()
    return int.from_bytes(digest, "big") / 2**64
