"""The rate at which a key spends, against what is usual at that hour of the week. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
from river import proba

from services.evaluation.core.cost_rules import SpendRateRules

__all__ = ["Call", "Episode", "RateFinding", "SpendRate", "observe"]

_SHORT, _LONG = 5, 30
"""Minutes of the two windows: a steep rise shows in the short one, a slow key's in the long one."""
_LATENESS = 30
"""Minutes for which a past hour stays open for late calls before it is learned from."""
_WEEK = 168
_MOST_GAP = _WEEK
_SAMPLES = 5
_MARKS = 8
# Values that a residual's mean and deviation remember: about four weeks.
_SHORT_MEMORY, _LONG_MEMORY, _COST_MEMORY = 8064, 1344, 2000
_LEVEL_GAIN, _SLOT_GAIN = 0.05, 0.3
_MOST_SURPRISE = math.log(2)
_RELATIVE = 0.1
_SMALLEST = 1e-12
_UNSEEN = float("nan")
_NO_PROFILE = array("f", [_UNSEEN] * _WEEK).tobytes()


class Call(NamedTuple):
    """One priced call."""

    minute: int
    """Since the epoch, of the instant that the ledger accounts it at."""
    amount: Decimal
    offset: int
    request_id: str


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """What was spent in one minute. ``capped`` and ``top`` (the dearest call) count no call with more than the cap."""

    minute: int
    amount: Decimal
    capped: float
    top: float
    calls: int
    first: int
    last: int


class Bin(msgspec.Struct, frozen=True, array_like=True):
    """What was spent in five minutes that are not learned from yet."""

    number: int
    capped: float


class Moments(msgspec.Struct, frozen=True, array_like=True):
    """Count, mean and variance of values; the count is bounded, so that old ones are forgotten."""

    count: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def updated(self, values: Iterable[float], memory: int) -> Moments:
        """Return the moments with ``values`` added, by River's Gaussian."""
        count, mean, variance = self.count, self.mean, self.variance
        gaussian: Any = proba.Gaussian._from_state(count, mean, variance, 1)  # type: ignore[no-untyped-call]
        for value in values:
            gaussian.update(value)
        count = gaussian.n_samples
        return Moments(min(count, float(memory)), gaussian.mu, gaussian.sigma**2)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(max(self.variance, 0.0))


class Dear(msgspec.Struct, frozen=True, array_like=True):
    """A dear call of the last half hour."""

    amount: Decimal
    minute: int
    request_id: str


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The first offset of a day of the history."""

    day: int
    offset: int


class Episode(msgspec.Struct, frozen=True, array_like=True):
    """A rise: a candidate until it is confirmed."""

    since: int
    """Minute of the first finding."""
    held: int = 1
    """Distinct minutes in which it held."""
    last: int = 0
    """Newest of them."""
    confirmed: bool = False
    calm_since: int = -1
    """Minute from which the rate has been back; -1 where it is not."""
    told_critical: bool = False
    told: bool = False


class SpendRate(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one key's spending: about 3 KB.

    Attributes:
        minutes: of the last half hour, oldest first, those with calls.
        bins: of the hours that are not learned from yet.
        open_hour: the first of these, hours since the epoch; -1 before the first call.
        hours: learned so far.
        profile: by hour of the week, log(1 + spending in units), float32; NaN where unseen.
        level: how much more than the profile the key spends lately, logarithmic.
        short, long: residuals of the two windows.
        cost: logarithms of the calls' costs.
        unit: USD of a usual call.
        rate: USD a minute that is usual in ``rate_hour``.
        known: whether that hour of the week has been seen.
    """

    minutes: tuple[Minute, ...] = ()
    bins: tuple[Bin, ...] = ()
    open_hour: int = -1
    hours: int = 0
    profile: bytes = _NO_PROFILE
    level: float = 0.0
    short: Moments = Moments()
    long: Moments = Moments()
    cost: Moments = Moments()
    unit: float = 0.0
    rate: float = 0.0
    rate_hour: int = -1
    known: bool = False
    marks: tuple[Mark, ...] = ()
    dearest: tuple[Dear, ...] = ()
    episode: Episode | None = None
    told_at: float = 0.0
    suppressed: int = 0


class RateFinding(NamedTuple):
    """A rise that was confirmed, goes on, or is over; amounts in USD."""

    status: Literal["firing", "resolved", "accepted"]
    critical: bool
    minutes: int
    spent: Decimal
    calls: int
    usual: float
    """What the window would usually have cost."""
    ratio: float
    deviations: float
    known: bool
    since: int
    first_offset: int
    last_offset: int
    baseline_first: int
    baseline_last: int
    dearest: tuple[Dear, ...]
    suppressed: int


class _Window(NamedTuple):
    minutes: int
    spent: float
    """Capped, and without the dearest call."""
    usual: float
    deviations: float


def observe(state: SpendRate, call: Call, rules: SpendRateRules, now: datetime) -> tuple[SpendRate, RateFinding | None]:
    """Add a call.

    Args:
        state: of the key so far; not changed.
        call: the call. One that is later than the hours still open counts nowhere.
        rules: parameters.
        now: the message's timestamp, for the limit on repetitions.
    """
    state = _advanced(state, call, rules)
    state = _counted(state, call, rules)
    if state.hours < rules.least_hours or not state.unit or not state.minutes:
        return state, None
    return _judged(state, rules, now)


def _advanced(state: SpendRate, call: Call, rules: SpendRateRules) -> SpendRate:
    """Learn from the hours that are over; begin a day."""
    hour = call.minute // 60
    if state.open_hour < 0:
        return msgspec.structs.replace(state, open_hour=hour, marks=(Mark(hour // 24, call.offset),))
    due = (call.minute - _LATENESS) // 60
    if due > state.open_hour:
        if not state.unit:
            state = msgspec.structs.replace(
                state, open_hour=due, bins=tuple(each for each in state.bins if each.number >= due * 12)
            )
        else:
            state = _learned(state, due, rules)
    if hour // 24 > state.marks[-1].day:
        state = msgspec.structs.replace(state, marks=(*state.marks, Mark(hour // 24, call.offset))[-_MARKS:])
    if hour > state.rate_hour and state.unit:
        rate, known = _usual(state, hour)
        state = msgspec.structs.replace(state, rate=rate, rate_hour=hour, known=known)
    return state


def _counted(state: SpendRate, call: Call, rules: SpendRateRules) -> SpendRate:
    amount = min(max(float(call.amount), 0.0), 1e15)
    if amount <= 0:
        return state
    cost, unit = state.cost, state.unit
    if state.episode is None:
        cost = _one_more(cost, math.log(max(amount, _SMALLEST)), _COST_MEMORY)
    if not unit:
        if cost.count < rules.least_calls:
            return msgspec.structs.replace(state, cost=cost)
        unit = math.exp(min(cost.mean + min(cost.variance, 4.0) / 2, 30.0))
    capped = min(amount, math.exp(min(cost.mean + rules.dearest_at * max(cost.deviation, 0.5), 35.0)))
    head = max(call.minute, state.minutes[-1].minute if state.minutes else 0)
    minutes, dearest = state.minutes, state.dearest
    if call.minute > head - _LONG:
        minutes = _put(minutes, call, capped, head)
        dearest = _dearest(dearest, call, head)
    bins = state.bins
    if call.minute // 60 >= state.open_hour:
        bins = _binned(bins, call.minute // 5, capped)
    return msgspec.structs.replace(state, minutes=minutes, bins=bins, cost=cost, unit=unit, dearest=dearest)


def _put(minutes: tuple[Minute, ...], call: Call, capped: float, head: int) -> tuple[Minute, ...]:
    if minutes and minutes[-1].minute == call.minute:
        return (*minutes[:-1], _added(minutes[-1], call, capped))
    fresh = Minute(call.minute, call.amount, capped, capped, 1, call.offset, call.offset)
    if not minutes or minutes[-1].minute < call.minute:
        return (*(each for each in minutes if each.minute > head - _LONG), fresh)
    for index, each in enumerate(minutes):
        if each.minute == call.minute:
            return (*minutes[:index], _added(each, call, capped), *minutes[index + 1 :])
        if each.minute > call.minute:
            return (*minutes[:index], fresh, *minutes[index:])
    return minutes


def _added(minute: Minute, call: Call, capped: float) -> Minute:
    return Minute(
        minute.minute,
        minute.amount + call.amount,
        minute.capped + capped,
        max(minute.top, capped),
        minute.calls + 1,
        min(minute.first, call.offset),
        max(minute.last, call.offset),
    )


def _binned(bins: tuple[Bin, ...], number: int, capped: float) -> tuple[Bin, ...]:
    if bins and bins[-1].number == number:
        return (*bins[:-1], Bin(number, bins[-1].capped + capped))
    if not bins or bins[-1].number < number:
        return (*bins, Bin(number, capped))
    sums = {each.number: each.capped for each in bins}
    sums[number] = sums.get(number, 0.0) + capped
    return tuple(Bin(each, sums[each]) for each in sorted(sums))


def _dearest(dearest: tuple[Dear, ...], call: Call, head: int) -> tuple[Dear, ...]:
    if len(dearest) == _SAMPLES and call.amount <= dearest[-1].amount and dearest[-1].minute > head - _LONG:
        return dearest
    kept = [each for each in dearest if each.minute > head - _LONG and each.request_id != call.request_id]
    kept.append(Dear(call.amount, call.minute, call.request_id))
    kept.sort(key=lambda each: (-each.amount, each.request_id))
    return tuple(kept[:_SAMPLES])


def _one_more(moments: Moments, value: float, memory: int) -> Moments:
    """Return the moments with one value added, as River's Gaussian does it; every call comes here, so without its object."""
    count = moments.count + 1
    difference = value - moments.mean
    mean = moments.mean + difference / count
    squares = moments.variance * (moments.count - 1 if moments.count > 1 else 0) + difference * (value - mean)
    return Moments(min(count, float(memory)), mean, squares / (count - 1) if count > 1 else 0.0)


def _usual(state: SpendRate, hour: int) -> tuple[float, bool]:
    """Return USD a minute that are usual in an hour, and whether that hour of the week has been seen.

    The neighbouring hours count as well: mornings begin earlier or later, and daylight saving moves all of them.
    """
    profile = array("f", state.profile)
    near = [profile[(hour + step) % _WEEK] for step in (-1, 0, 1)]
    known = not math.isnan(near[1])
    seen = [value for value in (near if known else profile) if not math.isnan(value)]
    if not seen:
        return 0.0, False
    logarithm = min(max(seen) + state.level, 60.0)
    return state.unit * math.expm1(max(logarithm, 0.0)) / 60, known


def _residual(spent: float, usual: float, unit: float) -> float:
    """Return how far spending lies from the usual, about normal with a variance near 1 for calls that come singly.

    The logarithm of a ratio of counts has a variance of about 1/expected; beside it stands the error of the profile.
    """
    expected = usual / unit
    return math.log((spent / unit + 1) / (expected + 1)) / math.sqrt(1 / (expected + 1) + _RELATIVE**2)


def _learned(state: SpendRate, due: int, rules: SpendRateRules) -> SpendRate:
    """Learn the hours before ``due``, empty ones too."""
    profile = array("f", state.profile)
    sums = {each.number: each.capped for each in state.bins}
    short: list[float] = []
    long: list[float] = []
    level, hours, unit = state.level, state.hours, state.unit
    episode = state.episode
    for hour in range(max(state.open_hour, due - _MOST_GAP), due):
        fives = [sums.get(hour * 12 + index, 0.0) for index in range(12)]
        spent = math.log1p(math.fsum(fives) / unit)
        slot = hour % _WEEK
        if episode is not None and episode.confirmed:
            continue
        if math.isnan(profile[slot]):
            profile[slot] = spent - level
        else:
            rate, _ = _usual(msgspec.structs.replace(state, profile=profile.tobytes(), level=level), hour)
            short.extend(_residual(each, rate * _SHORT, unit) for each in fives)
            long.extend(_residual(math.fsum(part), rate * _LONG, unit) for part in (fives[:6], fives[6:]))
            surprise = min(spent - profile[slot] - level, _MOST_SURPRISE)
            level += _LEVEL_GAIN * surprise
            profile[slot] += _SLOT_GAIN * surprise
        hours += 1
    return msgspec.structs.replace(
        state,
        bins=tuple(each for each in state.bins if each.number >= due * 12),
        open_hour=due,
        hours=hours,
        profile=profile.tobytes(),
        level=level,
        short=state.short.updated(short, _SHORT_MEMORY),
        long=state.long.updated(long, _LONG_MEMORY),
        rate_hour=-1,
    )


def _judged(state: SpendRate, rules: SpendRateRules, now: datetime) -> tuple[SpendRate, RateFinding | None]:
    head = state.minutes[-1].minute
    windows = [_window(state, head, _SHORT, state.short), _window(state, head, _LONG, state.long)]
    factor = rules.factor if state.known else rules.cold_factor
    risen = [window for window in windows if _has_risen(window, factor, rules)]
    episode = state.episode
    if episode is None:
        if not risen:
            return state, None
        episode = Episode(since=head, last=head)
    elif not episode.confirmed:
        if not risen:
            return msgspec.structs.replace(state, episode=None), None
        if head > episode.last:
            episode = msgspec.structs.replace(episode, held=episode.held + 1, last=head)
    if not episode.confirmed:
        if episode.held < rules.confirm_minutes:
            return msgspec.structs.replace(state, episode=episode), None
        episode = msgspec.structs.replace(episode, confirmed=True)
    return _going_on(state, episode, head, risen, windows, rules, now)


def _going_on(
    state: SpendRate,
    episode: Episode,
    head: int,
    risen: list[_Window],
    windows: list[_Window],
    rules: SpendRateRules,
    now: datetime,
) -> tuple[SpendRate, RateFinding | None]:
    """Tell a confirmed rise, tell it again, or see that it is over."""
    if head - episode.since >= rules.accept_after.total_seconds() // 60:
        finding = _finding(state, episode, "accepted", max(windows, key=_ratio), False)
        level = state.level + max(0.0, math.log(max(_ratio(windows[1]), 1e-9)))
        ended = msgspec.structs.replace(state, episode=None, level=level, rate_hour=-1, suppressed=0)
        return ended, finding if episode.told else None
    calm = _window(state, head, rules.resolve_minutes, state.long)
    if calm.spent <= rules.resolve_factor * calm.usual or calm.deviations < 1:
        since = head if episode.calm_since < 0 else episode.calm_since
        if head - since >= rules.resolve_minutes:
            ended = msgspec.structs.replace(state, episode=None, suppressed=0)
            return ended, _finding(state, episode, "resolved", calm, False) if episode.told else None
        return msgspec.structs.replace(state, episode=msgspec.structs.replace(episode, calm_since=since)), None
    if episode.calm_since >= 0:
        episode = msgspec.structs.replace(episode, calm_since=-1)
    if not risen:
        return msgspec.structs.replace(state, episode=episode), None
    window = max(risen, key=_ratio)
    critical = _ratio(window) >= rules.critical_factor
    due = now.timestamp() - state.told_at >= rules.repeat_after.total_seconds()
    if not due and (not critical or episode.told_critical):
        return msgspec.structs.replace(state, episode=episode, suppressed=state.suppressed + 1), None
    finding = _finding(state, episode, "firing", window, critical)
    episode = msgspec.structs.replace(episode, told=True, told_critical=critical or episode.told_critical)
    return msgspec.structs.replace(state, episode=episode, told_at=now.timestamp(), suppressed=0), finding


def _window(state: SpendRate, head: int, minutes: int, residuals: Moments) -> _Window:
    spent = top = 0.0
    for each in reversed(state.minutes):
        if each.minute <= head - minutes:
            break
        spent += each.capped
        top = max(top, each.top)
    usual = state.rate * minutes
    spent = max(spent - top, 0.0)
    score = (_residual(spent, usual, state.unit) - residuals.mean) / max(residuals.deviation, 1.0)
    return _Window(minutes, spent, usual, score)


def _has_risen(window: _Window, factor: float, rules: SpendRateRules) -> bool:
    return (
        window.deviations >= rules.deviations
        and window.spent >= factor * window.usual
        and (window.spent - window.usual) * 60 / window.minutes >= rules.least_excess
    )


def _ratio(window: _Window) -> float:
    return window.spent / max(window.usual, _SMALLEST)


def _finding(
    state: SpendRate,
    episode: Episode,
    status: Literal["firing", "resolved", "accepted"],
    window: _Window,
    critical: bool,
) -> RateFinding:
    head = state.minutes[-1].minute
    within = [each for each in state.minutes if each.minute > head - window.minutes]
    first = min(each.first for each in within)
    return RateFinding(
        status=status,
        critical=critical,
        minutes=window.minutes,
        spent=sum((each.amount for each in within), Decimal(0)),
        calls=sum(each.calls for each in within),
        usual=window.usual,
        ratio=_ratio(window),
        deviations=window.deviations,
        known=state.known,
        since=episode.since,
        first_offset=first,
        last_offset=max(each.last for each in within),
        baseline_first=min(state.marks[0].offset, first),
        baseline_last=max(first - 1, min(state.marks[0].offset, first)),
        dearest=state.dearest,
        suppressed=state.suppressed,
    )
