"""The rate at which a key spends, against what is usual at that half hour of the week. Pure.

A call counts at the instant that the ledger accounts it at. A late one raises the minute it belongs to and no other, so it
can fake neither a rise nor a hole: sums only grow, hence a rise can be seen at once, and a slot is learned from only after
it was open for late calls for as long again.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

import msgspec

from services.evaluation.core.cost_rules import SpendRateRules
from services.evaluation.core.spend_bins import Bin, Call, Dear, added, dearest_of, spent_since
from services.evaluation.core.spend_profile import (
    LATENESS,
    SLOT,
    WINDOWS,
    Moments,
    Profile,
    learned,
    residual,
    usual_rate,
)

__all__ = ["Episode", "RateFinding", "SpendRate", "observe"]

_FINE = 15
"""Minutes kept one by one; beyond them, and beside them, spending is kept by five minutes."""
_COARSE = WINDOWS[-1]
_MARKS = 8
_COST_MEMORY = 2000
_SMALLEST = 1e-12
_MOST = 1e15


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The first offset of a day of the history."""

    day: int
    offset: int


class Episode(msgspec.Struct, frozen=True, array_like=True):
    """A rise: a candidate until it is confirmed."""

    since: int
    """Minute of the first finding."""
    last: int
    """Newest minute in which it held."""
    held: int = 1
    """Distinct minutes in which it held."""
    confirmed: bool = False
    calm_since: int = -1
    """Minute from which the rate has been back; -1 where it is not."""
    told: bool = False
    told_critical: bool = False


class SpendRate(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one key's spending: under 4 KB.

    Attributes:
        minutes: of the last quarter of an hour, those with calls, oldest first.
        fives: of the last hour and the slots that are not learned from yet, likewise.
        open_slot: the first of these slots, half hours since the epoch; -1 before the first call.
        cost: logarithms of the calls' costs.
        profile: null until enough calls were seen.
        rates: USD a minute usual in ``rate_slot`` and the slots before it, newest first.
        rate_slot: slot of the newest call; -1 where ``rates`` are to be looked up anew.
        known: whether that slot of the week has been seen.
        marks: where the last days begin in the log.
        dearest: calls of the last hour.
        episode: the rise that goes on.
        told_at: when on-call was last told (epoch, seconds).
        suppressed: calls for which it held since then.
    """

    minutes: tuple[Bin, ...] = ()
    fives: tuple[Bin, ...] = ()
    open_slot: int = -1
    cost: Moments = Moments()
    profile: Profile | None = None
    rates: tuple[float, ...] = ()
    rate_slot: int = -1
    known: bool = False
    marks: tuple[Mark, ...] = ()
    dearest: tuple[Dear, ...] = ()
    episode: Episode | None = None
    told_at: float = 0.0
    suppressed: int = 0


class RateFinding(NamedTuple):
    """A rise that was confirmed or goes on, or is over; amounts in USD."""

    status: Literal["firing", "resolved", "accepted"]
    critical: bool
    minutes: int
    spent: Decimal
    calls: int
    usual: float
    """What the window would usually have cost."""
    ratio: float
    """Without the dearest call, and no call counted beyond the cap."""
    deviations: float
    known: bool
    since: int
    """Minute since the epoch."""
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
    bins: tuple[Bin, ...]

    @property
    def ratio(self) -> float:
        return self.spent / max(self.usual, _SMALLEST)


def observe(state: SpendRate, call: Call, rules: SpendRateRules, now: datetime) -> tuple[SpendRate, RateFinding | None]:
    """Add a call.

    Args:
        state: of the key so far; not changed.
        call: the call. One that is later than all slots still open counts nowhere.
        rules: parameters.
        now: the message's timestamp, for the limit on repetitions.
    """
    state = _counted(_advanced(state, call), call, rules)
    profile = state.profile
    if profile is None or profile.slots * SLOT < rules.least_hours * 60 or not state.minutes:
        return state, None
    if state.minutes[-1].number // SLOT != state.rate_slot:
        # Calls that cost nothing have moved the present on: what was spent before it has been judged.
        return state, None
    return _judged(state, profile, rules, now)


def _advanced(state: SpendRate, call: Call) -> SpendRate:
    """Learn from the slots that are over; begin a slot and a day."""
    slot, day = call.minute // SLOT, call.minute // 1440
    if state.open_slot < 0:
        return msgspec.structs.replace(state, open_slot=slot, marks=(Mark(day, call.offset),))
    due = (call.minute - LATENESS) // SLOT
    profile = state.profile
    if due > state.open_slot:
        # What a rise spends is not what is usual; how long it may last before it is, the rules say.
        if profile is not None and (state.episode is None or not state.episode.confirmed):
            sums = {each.number: each.capped for each in state.fives}
            profile = learned(profile, sums, state.open_slot, due)
        oldest = min(due * SLOT, call.minute - _COARSE) // 5
        fives = tuple(each for each in state.fives if each.number >= oldest)
        state = msgspec.structs.replace(state, open_slot=due, fives=fives, profile=profile, rate_slot=-1)
    if day > state.marks[-1].day:
        state = msgspec.structs.replace(state, marks=(*state.marks, Mark(day, call.offset))[-_MARKS:])
    if profile is not None and slot > state.rate_slot:
        # A late call may be the one after which slots are learned.
        newest = max(slot, state.minutes[-1].number // SLOT) if state.minutes else slot
        looked_up = [usual_rate(profile, newest - back) for back in range(_COARSE // SLOT + 1)]
        rates = tuple(rate for rate, _ in looked_up)
        state = msgspec.structs.replace(state, rates=rates, rate_slot=newest, known=looked_up[0][1])
    return state


def _counted(state: SpendRate, call: Call, rules: SpendRateRules) -> SpendRate:
    amount = min(float(call.amount), _MOST)
    # A call that cost nothing (a cache answered it) is no call here.
    if not amount > 0:
        return state
    cost, profile, open_slot = state.cost, state.profile, state.open_slot
    if state.episode is None:
        cost = cost.one_more(math.log(max(amount, _SMALLEST)), _COST_MEMORY)
    if profile is None:
        if cost.count < rules.least_calls:
            return msgspec.structs.replace(state, cost=cost)
        # Of a lognormal cost cut at the cap, about mean square over mean: spending is then as uneven as a count of these.
        profile = Profile(math.exp(cost.mean + min(cost.variance, cost.deviation)))
        # Of this slot only a part will have been seen.
        open_slot = max(open_slot, call.minute // SLOT + 1)
    capped = min(amount, math.exp(cost.mean + rules.dearest_at * max(cost.deviation, 0.5)))
    head = max(call.minute, state.minutes[-1].number) if state.minutes else call.minute
    minutes, fives, dearest = state.minutes, state.fives, state.dearest
    if call.minute > head - _FINE:
        minutes = added(minutes, call.minute, call, capped, head - _FINE + 1)
    if call.minute // SLOT >= open_slot or call.minute > head - _COARSE:
        fives = added(fives, call.minute // 5, call, capped, min(open_slot * SLOT, head - _COARSE + 1) // 5)
    if call.minute > head - _COARSE:
        dearest = dearest_of(dearest, call, head - _COARSE + 1)
    return msgspec.structs.replace(
        state, open_slot=open_slot, minutes=minutes, fives=fives, cost=cost, profile=profile, dearest=dearest
    )


def _judged(
    state: SpendRate, profile: Profile, rules: SpendRateRules, now: datetime
) -> tuple[SpendRate, RateFinding | None]:
    head = state.minutes[-1].number
    factor = rules.factor if state.known else rules.cold_factor
    risen = []
    for minutes, residuals in zip(WINDOWS, profile.residuals, strict=True):
        if _may_have_risen(state, minutes, head, factor):
            window = _window(state, profile, minutes, residuals, head)
            if _has_risen(window, rules):
                risen.append(window)
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
    return _going_on(state, profile, episode, risen, rules, now)


def _going_on(
    state: SpendRate,
    profile: Profile,
    episode: Episode,
    risen: list[_Window],
    rules: SpendRateRules,
    now: datetime,
) -> tuple[SpendRate, RateFinding | None]:
    """Tell a confirmed rise, tell it again, or see that it is over."""
    head = state.minutes[-1].number
    calm = _window(state, profile, rules.resolve_minutes, profile.residuals[1], head)
    if calm.spent <= rules.resolve_factor * calm.usual or calm.deviations < 1:
        since = head if episode.calm_since < 0 else episode.calm_since
        if head - since >= rules.resolve_minutes:
            ended = msgspec.structs.replace(state, episode=None, suppressed=0)
            return ended, _finding(state, episode, "resolved", calm, False) if episode.told else None
        return msgspec.structs.replace(state, episode=msgspec.structs.replace(episode, calm_since=since)), None
    if head - episode.since >= rules.accept_after.total_seconds() // 60:
        longest = _window(state, profile, _COARSE, profile.residuals[-1], head)
        raised = msgspec.structs.replace(profile, level=profile.level + max(0.0, math.log(max(longest.ratio, 1.0))))
        ended = msgspec.structs.replace(state, episode=None, profile=raised, rate_slot=-1, suppressed=0)
        return ended, _finding(state, episode, "accepted", longest, False) if episode.told else None
    if episode.calm_since >= 0:
        episode = msgspec.structs.replace(episode, calm_since=-1)
    if not risen:
        return msgspec.structs.replace(state, episode=episode), None
    window = max(risen, key=lambda each: each.ratio)
    critical = window.ratio >= rules.critical_factor
    due = now.timestamp() - state.told_at >= rules.repeat_after.total_seconds()
    if not due and (not critical or episode.told_critical):
        return msgspec.structs.replace(state, episode=episode, suppressed=state.suppressed + 1), None
    finding = _finding(state, episode, "firing", window, critical)
    episode = msgspec.structs.replace(episode, told=True, told_critical=critical or episode.told_critical)
    return msgspec.structs.replace(state, episode=episode, told_at=now.timestamp(), suppressed=0), finding


def _window(state: SpendRate, profile: Profile, minutes: int, residuals: Moments, head: int) -> _Window:
    """Return the last minutes: to the minute where they are kept, else from the beginning of five."""
    bins, oldest, start = _reach(state, minutes, head)
    first, spent = spent_since(bins, oldest)
    usual = _usual_between(state, start, head + 1)
    score = residual(spent, usual, profile.unit) / residuals.upward if spent > usual else 0.0
    return _Window(head + 1 - start, spent, usual, score, bins[first:])


def _reach(state: SpendRate, minutes: int, head: int) -> tuple[tuple[Bin, ...], int, int]:
    """Return the bins that hold the last minutes, the first of them, and the minute it begins with."""
    if minutes <= _FINE:
        return state.minutes, head - minutes + 1, head - minutes + 1
    oldest = head // 5 - minutes // 5 + 1
    return state.fives, oldest, oldest * 5


def _usual_between(state: SpendRate, start: int, end: int) -> float:
    """Return what the minutes from ``start`` and before ``end`` usually cost."""
    begin = state.rate_slot * SLOT
    if start >= begin:
        return state.rates[0] * (end - start)
    usual = state.rates[0] * (end - begin)
    for rate in state.rates[1:]:
        end, begin = begin, begin - SLOT
        usual += rate * (end - max(start, begin))
        if start >= begin:
            break
    return usual


def _may_have_risen(state: SpendRate, minutes: int, head: int, factor: float) -> bool:
    """Whether a window holds enough to be looked at: few do, and every call comes here."""
    bins, oldest, start = _reach(state, minutes, head)
    return spent_since(bins, oldest)[1] >= factor * _usual_between(state, start, head + 1)


def _has_risen(window: _Window, rules: SpendRateRules) -> bool:
    return (
        window.deviations >= rules.deviations
        and (window.spent - window.usual) * 60 / window.minutes >= rules.least_excess
    )


def _finding(
    state: SpendRate,
    episode: Episode,
    status: Literal["firing", "resolved", "accepted"],
    window: _Window,
    critical: bool,
) -> RateFinding:
    first = min(each.first for each in window.bins)
    start = min(state.marks[0].offset, first)
    begin = state.minutes[-1].number - window.minutes + 1
    return RateFinding(
        status=status,
        critical=critical,
        minutes=window.minutes,
        spent=sum((each.amount for each in window.bins), Decimal(0)),
        calls=sum(each.calls for each in window.bins),
        usual=window.usual,
        ratio=window.ratio,
        deviations=window.deviations,
        known=state.known,
        since=episode.since,
        first_offset=first,
        last_offset=max(each.last for each in window.bins),
        baseline_first=start,
        baseline_last=max(first - 1, start),
        dearest=tuple(each for each in state.dearest if each.minute >= begin) or state.dearest,
        suppressed=state.suppressed,
    )
