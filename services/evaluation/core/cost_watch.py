"""Watches what a team spends: anomalies of the rate, changed prices, caches that serve less. Pure.

Fed with every :class:`Cost` of a team in log order, once for each of :func:`watch_keys`: the team as a whole, and the
team with the model. The team's key watches the rate only, the model's all three. A step takes about 20 microseconds; the
state is 2 to 4 KB a key, however long it runs.

Figures of tests/bench/bench_cost_alerts.py for the rate: 30 days after a week of history, 3 simulated teams of each kind,
faults of two hours that cost at least ``least_excess``. False alarms by key and 30 days; minutes to the alert (median), and
share missed:

    ==================================  =====  ============  ============  ====================
    kind of team, calls in a busy hour   false  3 times       10 times      3 times the peak
    ==================================  =====  ============  ============  ====================
    offices, 0.1 a minute                0.33   32, 89 %      51, 22 %      75, 73 %
    offices, 1 a minute                  0.33   40, 56 %      19, 16 %      10, 0 %
    offices, 10 a minute                 0.00   36, 45 %      11, 2 %       3, 0 %
    around the clock, 0.3 a minute       0.00   114, 90 %     30, 10 %      56, 33 %
    around the clock, 5 a minute         0.33   30, 5 %       5, 0 %        11, 0 %
    the same in bursts                   0.00   44, 38 %      6, 0 %        13, 2 %
    nightly batch, 1 a minute            1.00   47, 66 %      26, 17 %      13, 5 %
    ==================================  =====  ============  ============  ====================

What is missed are rises that a team's own ups and downs hide for two hours: few calls, or the beginning of a workday.

River's detectors alone, over the spending of five minutes: GaussianScorer (of all hours, or one for each half hour of a
day), QuantileFilter, and PredictiveAnomalyDetection with HoltWinters or SNARIMAX find no threefold rise and miss 72 % or
more of the tenfold ones of the third and fifth kind; HalfSpaceTrees finds the tenfold ones with 110 false alarms in 30 days.
One window and one deviation for all hours do not fit traffic with a rhythm.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from penstock.alerts import alert_emit
from penstock.bus import Emit
from penstock.contracts.records import Cost, LogRange

from services.evaluation.core import cache_rate, price_change, spend_rate
from services.evaluation.core.cache_rate import CacheRate
from services.evaluation.core.cost_alerts import cache_alert, price_alert, rate_alert
from services.evaluation.core.cost_rules import CacheRateRules, CostWatchRules, PriceChangeRules, SpendRateRules
from services.evaluation.core.price_change import PriceWatch, Usage
from services.evaluation.core.spend_bins import Call
from services.evaluation.core.spend_rate import SpendRate

__all__ = [
    "CacheRateRules", "CostWatch", "CostWatchRules", "PriceChangeRules", "SpendRateRules", "watch_expires", "watch_keys",
    "watch_step",
]  # fmt: skip

_TEAM, _MODEL = "watch/team/", "watch/model/"


class CostWatch(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What is kept of one key: under 8 KB however long it runs.

    Attributes:
        seen_at: newest timestamp of its messages.
        rate: of the rate of spending.
        usage: of the last day, by hour; of a model's key.
        price: of the model's price.
        tokens: of the share of prompt tokens that the provider's cache served.
        calls: of the share of calls that a cache answered.
    """

    seen_at: datetime
    rate: SpendRate = SpendRate()
    usage: Usage = ()
    price: PriceWatch = PriceWatch()
    tokens: CacheRate = CacheRate()
    calls: CacheRate = CacheRate()
    idle: timedelta = timedelta(days=15)


def watch_keys(cost: Cost) -> Iterable[str]:
    """Return the keys that a cost is watched under: its team's, and its team's and model's."""
    return (f"{_TEAM}{cost.tenant_id}", f"{_MODEL}{cost.tenant_id}/{cost.model}")


def watch_step(
    key: str, state: CostWatch | None, cost: Cost, origin: LogRange, rules: CostWatchRules, now: datetime
) -> tuple[CostWatch, list[Emit]]:
    """Take one cost into the state of one of its keys; return the alerts that follow.

    Args:
        key: one of :func:`watch_keys` of ``cost``.
        state: of the key so far; ``None`` at first. It is not changed.
        cost: the cost.
        origin: where it stands in the log.
        rules: parameters.
        now: timestamp of the message; there is no other clock.
    """
    state = state or CostWatch(seen_at=now)
    model = cost.model if key.startswith(_MODEL) else None
    offset = origin.first_offset
    emits: list[Emit] = []
    rate = state.rate
    # The instant that the ledger accounts it at: that of the admission, which a backlog behind it does not bunch
    # together. Nothing happens after its message was written: a wrong clock cannot move the present.
    accounted_at = min(cost.accounted_at or cost.occurred_at, now)
    if cost.amount is not None:
        call = Call(max(int(accounted_at.timestamp() // 60), 0), cost.amount, offset, cost.request_id)
        rate, found = spend_rate.observe(rate, call, rules.spend_rate, now)
        if found is not None:
            emits.append(alert_emit(rate_alert(cost, model, found, origin, now)))
    seen_at = max(state.seen_at, now)
    if model is None:
        return CostWatch(seen_at, rate, idle=rules.idle), emits
    usage = price_change.used(state.usage, cost, accounted_at.timestamp())
    called_at = min(cost.occurred_at, now).timestamp()
    price, change = price_change.observe(state.price, cost, called_at, offset, usage, rules.price_change, now)
    if change is not None:
        emits.append(alert_emit(price_alert(cost, change, origin, rules.price_change, now)))
    tokens, fall = cache_rate.observe_tokens(
        state.tokens, cost, offset, lambda: _a_day(usage)[0], rules.cache_rate, now
    )
    if fall is not None:
        emits.append(alert_emit(cache_alert(cost, fall, origin, now)))
    calls, fall = cache_rate.observe_calls(state.calls, cost, offset, lambda: _a_day(usage)[1], rules.cache_rate, now)
    if fall is not None:
        emits.append(alert_emit(cache_alert(cost, fall, origin, now)))
    return CostWatch(seen_at, rate, usage, price, tokens, calls, rules.idle), emits


def watch_expires(state: CostWatch) -> datetime | None:
    """Return when the state may be forgotten: the key has then been idle for ``rules.idle``."""
    return state.seen_at + state.idle


def _a_day(usage: Usage) -> tuple[float, float]:
    """Return prompt tokens and calls of the last 24 hours, of the hours seen where they are fewer."""
    hours = max(usage[-1].hour - usage[0].hour + 1, 1)
    share = 24 / max(min(hours, 24), 1)
    return sum(each.input_tokens for each in usage) * share, sum(each.calls for each in usage) * share
