"""A model's price that is another than before, with what it makes of the last day's usage. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec
from penstock.contracts.records import Cost

from services.evaluation.core.cost_rules import PriceChangeRules

__all__ = ["PriceFinding", "PriceWatch", "Usage", "UsageHour", "observe", "used"]

_HOURS = 24
_VERSIONS = 4
_SAMPLES = 5
_ZERO = Decimal(0)


class UsageHour(msgspec.Struct, frozen=True, array_like=True):
    """What a team used of a model in one hour since the epoch; amounts in USD."""

    hour: int
    calls: int = 0
    """All, those that a cache answered and those without a price too."""
    priced_calls: int = 0
    """Those that a model answered at a price; what follows is theirs."""
    amount: Decimal = _ZERO
    input_tokens: int = 0
    output_tokens: int = 0


Usage = tuple[UsageHour, ...]
"""The last day's hours, oldest first."""


class Version(msgspec.Struct, frozen=True, array_like=True):
    """What was seen of one version of the price. Moments in epoch seconds, of the calls; amounts in USD."""

    version: str
    first_at: float
    last_at: float
    first_offset: int
    last_offset: int
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_amount: Decimal = _ZERO
    output_amount: Decimal = _ZERO
    compute_amount: Decimal = _ZERO
    samples: tuple[tuple[Decimal, str], ...] = ()

    @property
    def amount(self) -> Decimal:
        """USD of all its calls."""
        return self.input_amount + self.output_amount + self.compute_amount

    @property
    def per_thousand(self) -> Decimal | None:
        """USD of 1,000 tokens, prompt and answer together; null where none were seen."""
        tokens = self.input_tokens + self.output_tokens
        return self.amount * 1000 / tokens if tokens else None


class PriceWatch(msgspec.Struct, frozen=True, array_like=True):
    """The versions of one model's price that one team's calls had, the one in force last.

    Attributes:
        versions: at most four.
        before: while a change waits to be told, the version that was in force.
        told: by version, when a change to it was last told or it was first seen (epoch, seconds, of the calls).
    """

    versions: tuple[Version, ...] = ()
    before: str | None = None
    told: dict[str, float] = {}


class PriceFinding(NamedTuple):
    """A change of the price; amounts in USD."""

    before: Version
    after: Version
    day_amount: Decimal
    """What the 24 hours before the change cost."""
    day_at_new: Decimal | None
    """What they would have cost at the new price's effective rates; null where too little was seen."""

    @property
    def share(self) -> float:
        """Rise as a share of the cost before; negative for a fall."""
        if self.day_at_new is not None and self.day_amount > 0:
            return float(self.day_at_new / self.day_amount) - 1
        old, new = self.before.per_thousand, self.after.per_thousand
        return float(new / old) - 1 if old and new is not None else 0.0


def used(usage: Usage, cost: Cost, at: float) -> Usage:
    """Return the last day's usage with a call added; a call older than that changes nothing."""
    hour = int(at // 3600)
    if usage and usage[-1].hour == hour:
        return (*usage[:-1], _more(usage[-1], cost))
    if not usage or usage[-1].hour < hour:
        return (*(each for each in usage if each.hour > hour - _HOURS - 1), _more(UsageHour(hour), cost))
    if hour < usage[-1].hour - _HOURS:
        return usage
    hours = {each.hour: each for each in usage}
    hours[hour] = _more(hours.get(hour, UsageHour(hour)), cost)
    return tuple(hours[each] for each in sorted(hours))


def _more(hour: UsageHour, cost: Cost) -> UsageHour:
    if cost.amount is None or cost.kind == "cached":
        return UsageHour(
            hour.hour, hour.calls + 1, hour.priced_calls, hour.amount, hour.input_tokens, hour.output_tokens
        )
    return UsageHour(
        hour.hour,
        hour.calls + 1,
        hour.priced_calls + 1,
        hour.amount + cost.amount,
        hour.input_tokens + _tokens(cost.usage.input_tokens),
        hour.output_tokens + _tokens(cost.usage.output_tokens),
    )


def _tokens(count: int) -> int:
    # No call has so many; sums must stay within 64 bits whatever a backend says.
    return min(max(count, 0), 10**9)


def observe(
    state: PriceWatch, cost: Cost, at: float, offset: int, usage: Usage, rules: PriceChangeRules, now: datetime
) -> tuple[PriceWatch, PriceFinding | None]:
    """Add a call.

    Args:
        state: of the team and model so far; not changed.
        cost: the call; one without a price, or that a cache answered, changes nothing.
        at: when the call was made, epoch seconds: its price is the one in force then.
        offset: where it stands in its partition.
        usage: of the last day.
        rules: parameters.
        now: the message's timestamp.
    """
    version = cost.price_version
    if not cost.priced or not version or cost.amount is None or cost.kind == "cached":
        return state, None
    known = {each.version: each for each in state.versions}
    seen = known.get(version) or Version(version, at, at, offset, offset)
    mine = _counted(seen, cost, at, offset)
    if not state.versions:
        return PriceWatch((mine,), None, {version: at}), None
    current = state.versions[-1]
    if version == current.version:
        return _told(PriceWatch((*state.versions[:-1], mine), state.before, state.told), at, usage, rules)
    others = tuple(each for each in state.versions if each.version not in (version, current.version))
    late = at <= current.first_at
    flapping = version in known and at - current.last_at < rules.settle.total_seconds()
    if late or flapping:
        return PriceWatch((*others[-(_VERSIONS - 2) :], mine, current), state.before, state.told), None
    versions = (*others[-(_VERSIONS - 2) :], current, mine)
    told = {each.version: state.told[each.version] for each in versions if each.version in state.told}
    if version in told and at - told[version] < rules.flap.total_seconds():
        return PriceWatch(versions, None, told), None
    # It begins anew: what it cost long ago is not what it costs now.
    mine = _counted(Version(version, at, at, offset, offset), cost, at, offset)
    return _told(PriceWatch((*versions[:-1], mine), state.before or current.version, told), at, usage, rules)


def _counted(version: Version, cost: Cost, at: float, offset: int) -> Version:
    amount = cost.amount or _ZERO
    samples = sorted({*version.samples, (amount, cost.request_id)}, key=lambda each: (-each[0], each[1]))[:_SAMPLES]
    return Version(
        version.version,
        min(version.first_at, at),
        max(version.last_at, at),
        min(version.first_offset, offset),
        max(version.last_offset, offset),
        version.calls + 1,
        version.input_tokens + _tokens(cost.usage.input_tokens),
        version.output_tokens + _tokens(cost.usage.output_tokens),
        version.input_amount + (cost.input_amount or _ZERO),
        version.output_amount + (cost.output_amount or _ZERO),
        version.compute_amount + (cost.compute_amount or _ZERO),
        tuple(samples),
    )


def _told(
    state: PriceWatch, at: float, usage: Usage, rules: PriceChangeRules
) -> tuple[PriceWatch, PriceFinding | None]:
    """Tell a change that waits, once enough was seen of the new price."""
    if state.before is None:
        return state, None
    current = state.versions[-1]
    if current.calls < rules.least_calls and at - current.first_at < rules.longest_wait.total_seconds():
        return state, None
    before = next((each for each in state.versions if each.version == state.before), None)
    state = PriceWatch(state.versions, None, {**state.told, current.version: at})
    if before is None or before.version == current.version:
        return state, None
    last = int(current.first_at // 3600)
    day = [each for each in usage if last - _HOURS <= each.hour < last] or [each for each in usage if each.hour <= last]
    day_amount = sum((each.amount for each in day), _ZERO)
    return state, PriceFinding(before, current, day_amount, _at_rates(current, day))


def _at_rates(version: Version, day: list[UsageHour]) -> Decimal | None:
    """Return what a day's usage costs at the effective rates of a version, by prompt token, generated token and call."""
    inputs, outputs = sum(each.input_tokens for each in day), sum(each.output_tokens for each in day)
    calls = sum(each.priced_calls for each in day)
    if (inputs and not version.input_tokens) or (outputs and not version.output_tokens) or not calls:
        return None
    total = version.compute_amount / version.calls * calls
    if inputs:
        total += version.input_amount / version.input_tokens * inputs
    if outputs:
        total += version.output_amount / version.output_tokens * outputs
    return total
