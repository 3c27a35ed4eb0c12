"""How soon the cost watch finds what it should, and how often it alerts where nothing is wrong.

    python -m tests.bench.bench_cost_alerts [--teams 3] [--days 30] [--faults 20]

Teams are simulated call by call: rhythms of day and week, bursts of minutes, users' sessions, days that are busier than
others, growth, call costs with a heavy tail, calls that reach the log late or after an outage all at once. After a week of
history every alert is false. A fault starts from the state that the watch had at a random moment after that week: the
state is a value, so one run of ordinary traffic serves all faults. Seeds are fixed.

Beside the watch stand River's detectors alone, over the spending of five minutes, with the same traffic and faults.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
from penstock.contracts.records import Context, Cost, Usage

from services.evaluation.core.cache_rate import CacheRate, observe_tokens
from services.evaluation.core.cost_rules import CacheRateRules, SpendRateRules
from services.evaluation.core.spend_bins import Call
from services.evaluation.core.spend_rate import RateFinding, SpendRate, observe
from tests.bench.river_spend import ALONE, Alone

Values = npt.NDArray[np.float64]
START = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp() // 60)
"""A Monday, in minutes since the epoch."""
WARM_UP = 8 * 1440
FAULT_MINUTES = 120
_CONTEXT = Context(requested_at=datetime(2026, 1, 5, tzinfo=UTC))


@dataclass(frozen=True)
class Kind:
    """A kind of team: ``night`` and ``weekend`` as shares of the busiest hour; calls a minute in that hour."""

    name: str
    night: float
    weekend: float
    peak: float
    nightly_batch: float = 0.0
    tail: float = 1.0
    """Standard deviation of the logarithm of a call's cost; 0.7 and 1.1 in the Azure traces of conversations and code."""
    burst: float = 0.2
    """Relative deviation of the rate within minutes; over five of them 0.16 and 0.42 in the same traces."""


KINDS = (
    Kind("office, 0.1 calls/min", 0.01, 0.05, 0.1),
    Kind("office, 1 call/min", 0.01, 0.05, 1.0),
    Kind("office, 10 calls/min", 0.01, 0.05, 10.0),
    Kind("around the clock, 0.3 calls/min", 0.4, 0.8, 0.3, tail=1.5),
    Kind("around the clock, 5 calls/min", 0.4, 0.8, 5.0, tail=1.5),
    Kind("around the clock, 5/min, bursty", 0.4, 0.8, 5.0, burst=0.42),
    Kind("nightly batch, 1 call/min", 0.05, 0.1, 1.0, nightly_batch=10.0),
)


class Traffic(NamedTuple):
    """Calls in log order: the minute they are accounted at, the minute they reach the log, USD."""

    accounted: Values
    written: Values
    amounts: Values


def rates(kind: Kind, rng: np.random.Generator, days: int) -> Values:
    """Return expected calls by minute."""
    minutes = np.arange(days * 1440)
    hour = minutes / 60 % 24
    day = minutes // 1440
    morning = 8 + rng.normal(0, 0.25, days)[day]
    evening = 18 + rng.normal(0, 0.4, days)[day]
    open_ = 1 / (1 + np.exp(-(hour - morning) / 0.35)) / (1 + np.exp((hour - evening) / 0.7))
    shape = kind.night + (1 - kind.night) * open_
    shape = np.where(day % 7 >= 5, np.minimum(shape, 1) * kind.weekend, shape)
    rate = kind.peak * shape
    if kind.nightly_batch:
        start = 120 + rng.normal(0, 5, days)[day]
        within = minutes % 1440
        rate = rate + kind.nightly_batch * ((within >= start) & (within < start + 25))
    noise = _autoregressive(rng, len(minutes), 12.0) * kind.burst + _autoregressive(rng, len(minutes), 180.0) * 0.1
    daily = rng.normal(0, 0.1, days)[day]
    growth = 0.005 * minutes / 1440
    return np.asarray(rate * np.exp(noise + daily + growth - 0.07))


def _autoregressive(rng: np.random.Generator, count: int, minutes: float) -> Values:
    """Return noise of deviation 1 that forgets itself within so many minutes."""
    keep = math.exp(-1 / minutes)
    shocks = rng.normal(0, math.sqrt(1 - keep**2), count)
    values = np.empty(count)
    level = float(rng.normal())
    for index, shock in enumerate(shocks.tolist()):
        level = keep * level + shock
        values[index] = level
    return values


def calls(kind: Kind, rng: np.random.Generator, rate: Values, start: int, outages: bool = True) -> Traffic:
    """Draw the calls of ``rate``: users come at random and make several calls each, a few minutes apart."""
    users = rng.poisson(rate / 2)
    begun = np.repeat(np.arange(len(rate)), users) + rng.random(int(users.sum()))
    each = rng.geometric(0.5, len(begun))
    accounted = np.repeat(begun, each) + rng.exponential(2.0, int(each.sum())) * (rng.random(int(each.sum())) < 0.6)
    delay = rng.exponential(0.2, len(accounted)) + (rng.random(len(accounted)) < 0.01) * rng.uniform(
        0, 25, len(accounted)
    )
    written = accounted + delay
    if outages:
        # Every five days or so the pipeline stands still for up to an hour and then catches up at once.
        for stop in range(3 * 1440, len(rate), 5 * 1440):
            begin = stop + float(rng.uniform(0, 1440))
            end = begin + float(rng.uniform(5, 60))
            held = (written >= begin) & (written < end)
            written[held] = end + (accounted[held] - begin) * 0.05
    amounts = 0.01 * np.exp(rng.normal(0, kind.tail, len(accounted)))
    # Agents with huge prompts: one call in 200 is a Pareto draw of up to 300 usual ones.
    dear = rng.random(len(accounted)) < 0.005
    amounts[dear] *= np.minimum(10 * (1 + rng.pareto(1.5, int(dear.sum()))), 300)
    order = np.argsort(written, kind="stable")
    return Traffic(start + accounted[order], start + written[order], amounts[order])


def watched(
    state: SpendRate, traffic: Traffic, rules: SpendRateRules, snapshots: Sequence[float] = ()
) -> tuple[list[tuple[float, RateFinding]], list[SpendRate]]:
    """Run the watch; return its findings with the minute they were written, and its states at ``snapshots``."""
    found: list[tuple[float, RateFinding]] = []
    states: list[SpendRate] = []
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    wanted = list(snapshots)
    rows = zip(traffic.accounted.tolist(), traffic.written.tolist(), traffic.amounts.tolist(), strict=True)
    for offset, (accounted, written, amount) in enumerate(rows):
        while wanted and written >= wanted[0]:
            states.append(state)
            wanted.pop(0)
        call = Call(int(accounted), Decimal(f"{amount:.9f}"), offset, f"r{offset}")
        state, finding = observe(state, call, rules, epoch + timedelta(minutes=written))
        if finding is not None:
            found.append((written, finding))
    return found, states


FAULTS: dict[str, Callable[[Kind, Values], Values]] = {
    "3 times": lambda kind, rate: rate * 3,
    "10 times": lambda kind, rate: rate * 10,
    "loop at 3 times the peak": lambda kind, rate: rate + 3 * kind.peak,
}


class Measured(NamedTuple):
    """Figures of one kind of team: false alarms, days watched, delays in minutes by fault (``None``: missed)."""

    false: int
    days: float
    delays: dict[str, list[float | None]]


def measure(kind: Kind, teams: int, days: int, faults: int, rules: SpendRateRules, seed: int) -> Measured:
    """Run teams of a kind: ordinary traffic, then each fault from states along the way."""
    false, delays = 0, {name: list[float | None]() for name in FAULTS}
    for team in range(teams):
        rng = np.random.default_rng([seed, team])
        rate = rates(kind, rng, days + 8)
        traffic = calls(kind, rng, rate, START)
        at = np.sort(rng.uniform(WARM_UP, len(rate) - FAULT_MINUTES - 1, faults)).astype(int)
        found, states = watched(SpendRate(), traffic, rules, [START + float(each) for each in at])
        false += sum(minute >= START + WARM_UP and each.status == "firing" for minute, each in _episodes(found))
        for name, fault in FAULTS.items():
            for begin, state in zip(at.tolist(), states, strict=False):
                usual = rate[begin : begin + FAULT_MINUTES]
                raised = fault(kind, usual)
                if not _matters(usual, raised):
                    continue
                drawn = calls(kind, rng, raised, START + begin, outages=False)
                told, _ = watched(state, drawn, rules)
                delays[name].append(next((m - START - begin for m, each in told if each.status == "firing"), None))
    return Measured(false, teams * days, delays)


def _episodes(found: list[tuple[float, RateFinding]]) -> Iterator[tuple[float, RateFinding]]:
    """Yield the first finding of each episode: repetitions are one alarm."""
    firing = False
    for minute, finding in found:
        if finding.status == "firing" and not firing:
            yield minute, finding
        firing = finding.status == "firing"


def measure_alone(alone: Alone, kind: Kind, days: int, faults: int, seed: int) -> Measured:
    """Run a detector of River's as :func:`measure` does ours; two values in a row are an alarm, as long as they last one."""
    rng = np.random.default_rng([seed, 0])
    rate = rates(kind, rng, days + 8)
    at = np.sort(rng.uniform(WARM_UP, len(rate) - FAULT_MINUTES - 1, faults)).astype(int) // 5 * 5
    values = _fives(calls(kind, rng, rate, 0), len(rate))
    detector, false, alarmed, row, kept = alone.make(), 0, False, 0, {}
    for index, value in enumerate(values):
        if index * 5 in at:
            kept[index * 5] = copy.deepcopy(detector)
        row = row + 1 if alone.risen(detector, index * 5, value) else 0
        false += row >= 2 and not alarmed and index * 5 >= WARM_UP
        alarmed = row >= 2
    delays: dict[str, list[float | None]] = {name: [] for name in FAULTS}
    for name, fault in FAULTS.items():
        for begin, state in kept.items():
            usual = rate[begin : begin + FAULT_MINUTES]
            raised = fault(kind, usual)
            if not _matters(usual, raised):
                continue
            trial, row, delay = copy.deepcopy(state), 0, None
            drawn = calls(kind, rng, raised, 0, outages=False)
            for index, value in enumerate(_fives(drawn, FAULT_MINUTES)):
                row = row + 1 if alone.risen(trial, begin + index * 5, value) else 0
                if row >= 2 and delay is None:
                    delay = float(index * 5 + 5)
            delays[name].append(delay)
    return Measured(false, days, delays)


def _fives(traffic: Traffic, minutes: int) -> list[float]:
    """Return log(1 + spending in usual calls) of each five minutes."""
    sums = np.bincount((traffic.accounted // 5).astype(int), traffic.amounts, minlength=minutes // 5)[: minutes // 5]
    return [float(value) for value in np.log1p(sums / 0.01)]


def _matters(usual: Values, raised: Values) -> bool:
    """Whether a fault costs enough to be told, at two cents a call."""
    return float((raised - usual).mean()) * 60 * 0.02 >= SpendRateRules().least_excess


def cache_shares(before: float, after: float, per_minute: float, days: float, seed: int) -> tuple[int, list[float]]:
    """Return false alarms over ``days``, then the delay in calls after the share of cached tokens fell."""
    rng = np.random.default_rng(seed)
    rules, state, offset, at = CacheRateRules(), CacheRate(), 0, datetime(2026, 1, 5, tzinfo=UTC)
    false = 0
    for phase, share, count in (("before", before, int(days * 1440 * per_minute)), ("after", after, 3000)):
        for index in range(count):
            at += timedelta(minutes=1 / per_minute)
            # A prefix is forgotten when calls are far apart, so the share follows the hour.
            daily = 0.05 * math.sin(at.hour / 24 * 2 * math.pi)
            hits = int(np.clip(rng.normal(share + daily, 0.25), 0, 1) * 4000)
            usage = Usage(input_tokens=4000, cached_input_tokens=hits)
            cost = Cost(
                event_id="", request_id="", tenant_id="t", occurred_at=at, causation_id="", context=_CONTEXT, model="m",
                priced=True, usage=usage, saved={"prefix_cache": Decimal(hits) / 200_000},
            )  # fmt: skip
            state, finding = observe_tokens(state, cost, offset, lambda: per_minute * 1440 * 4000, rules, at)
            offset += 1
            if finding is not None and finding.status == "firing":
                if phase == "after":
                    return false, [index + 1.0]
                false += 1
    return false, []


def line(name: str, measured: Measured) -> str:
    """Return a row of the table."""
    cells = [f"{name:34s} {30 * measured.false / measured.days:6.2f}"]
    for delays in measured.delays.values():
        seen = sorted(delay for delay in delays if delay is not None)
        missed = 1 - len(seen) / max(len(delays), 1)
        told = f"{statistics.median(seen):4.0f} {np.quantile(seen, 0.9):4.0f}" if seen else "   -    -"
        cells.append(f"{told} {missed:5.0%} {len(delays):4d}")
    return "  | ".join(cells)


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--teams", type=int, default=3, help="teams of each kind")
    arguments.add_argument("--days", type=int, default=30, help="days watched after the week of history")
    arguments.add_argument("--faults", type=int, default=20, help="moments from which each fault starts, per team")
    arguments.add_argument("--deviations", type=float, default=SpendRateRules().deviations, help="as in SpendRateRules")
    given = arguments.parse_args()
    rules = SpendRateRules(deviations=given.deviations)
    head = f"{'':34s}  false  | " + "  | ".join(f"{name:19.19s}" for name in FAULTS)
    units = f"{'':34s} /30 d   | " + "  | ".join("med  p90  miss   of" for _ in FAULTS)
    print(f"Spending, the watch: delay in minutes, share missed within {FAULT_MINUTES} minutes", head, units, sep="\n")
    for index, kind in enumerate(KINDS):
        print(line(kind.name, measure(kind, given.teams, given.days, given.faults, rules, index)), flush=True)
    for kind in (KINDS[2], KINDS[4]):
        print(f"\nSpending, River's detectors alone over five minutes: {kind.name}", head, units, sep="\n")
        for name, alone in ALONE.items():
            print(line(name, measure_alone(alone, kind, given.days, given.faults, 1)), flush=True)
    print("\nShare of cached tokens, 1 call a minute: delay in calls, false alarms in 30 days before")
    for before, after in ((0.7, 0.2), (0.7, 0.45), (0.4, 0.2)):
        runs = [cache_shares(before, after, 1.0, given.days, seed) for seed in range(given.teams * 2)]
        delays = [delay for _, found in runs for delay in found]
        told = f"{statistics.median(delays):5.0f} {max(delays):5.0f}" if delays else "    -     -"
        false = sum(each for each, _ in runs) / len(runs) * 30 / given.days
        print(
            f"  {before:.0%} to {after:.0%}: median {told} most, missed {1 - len(delays) / len(runs):.0%}, false {false:.2f}"
        )


if __name__ == "__main__":
    main()
