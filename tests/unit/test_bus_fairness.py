"""What a flood of one team does to the latency of another where calls are short: they are simulated, the window is real."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator

import pytest
from penstock.bus.waiting import Urgency, Waiting

CALLS = 16
MEAN_S = 0.15
CAPACITY = CALLS / MEAN_S
SECONDS = 200.0


def poisson(rate: float, seed: int) -> Iterator[float]:
    chance, at = random.Random(seed), 0.0
    while rate and (at := at + chance.expovariate(rate)) < SECONDS:
        yield at


def latencies(flood: float, most_of_flood: int = 1000, *, in_turns: bool = True) -> list[float]:
    """Return how long each request of the steady team takes, seconds, which asks for a tenth of the capacity.

    Args:
        flood: what the other team asks for, in capacities.
        most_of_flood: so many of its requests are in the stage at once, as admission sees to; others are left out.
        in_turns: whether the teams are flows of their own.
    """
    waiting: Waiting[tuple[str, float]] = Waiting()
    arrivals = sorted(
        [(at, "steady") for at in poisson(0.1 * CAPACITY, seed=1)]
        + [(at, "flood") for at in poisson(flood * CAPACITY, seed=2)]
    )
    times = random.Random(3)
    ends: list[tuple[float, bytes, str, float]] = []
    found: list[float] = []
    of_flood, number = 0, 0

    def start(now: float) -> None:
        while len(ends) < CALLS and (following := waiting.next(now)) is not None:
            key, (team, since) = following
            assert key is not None
            heapq.heappush(ends, (now + times.uniform(0.1, 0.2), key, team, since))

    while number < len(arrivals) or ends:
        if ends and (number == len(arrivals) or ends[0][0] <= arrivals[number][0]):
            now, key, team, since = heapq.heappop(ends)
            waiting.done(key)
            if team == "steady":
                found.append(now - since)
            else:
                of_flood -= 1
        else:
            now, team = arrivals[number]
            number += 1
            if team == "flood" and of_flood == most_of_flood:
                continue
            of_flood += team == "flood"
            waiting.put(b"%d" % number, (team, now), Urgency(), now, flow=team if in_turns else "")
        start(now)
    return found


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


@pytest.mark.parametrize("flood", [1.0, 2.0, 10.0])
def test_a_flood_moves_the_p95_of_another_team_by_less_than_a_fifth(flood: float) -> None:
    alone, beside = latencies(0.0), latencies(flood)
    assert len(alone) == len(beside) > 2000
    assert quantile(beside, 0.95) < 1.2 * quantile(alone, 0.95)
    assert quantile(beside, 0.5) < 1.2 * quantile(alone, 0.5)


def test_without_turns_it_would_wait_for_all_of_the_flood() -> None:
    alone, beside = latencies(0.0), latencies(2.0, in_turns=False)
    assert quantile(beside, 0.5) > 10 * quantile(alone, 0.5)
