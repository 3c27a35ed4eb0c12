"""The circuit breaker: it opens for failures only, one call tries what is open, and it never stays open for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from penstock.config.kinds import Breaker

from services.inference.routing.breaker import LONGEST_OPEN_S, Circuit, CircuitState

BREAKER = Breaker(failure_ratio=0.5, min_calls=4, window_s=30, open_s=10)
LONGEST_S = 60.0


def after(*outcomes: bool, breaker: Breaker = BREAKER, gap_s: float = 1.0, start: float = 0.0) -> Circuit:
    """Return a circuit after calls that were answered (True) or failed, one every ``gap_s``."""
    circuit = Circuit()
    for number, answered in enumerate(outcomes):
        now = start + number * gap_s
        if answered:
            circuit = circuit.answered(circuit.epoch, now, breaker)
        else:
            circuit = circuit.failed(circuit.epoch, now, breaker, "HTTP 503")
    return circuit


def test_it_opens_at_the_share_of_failures_and_not_before() -> None:
    assert after(True, True, False).state is CircuitState.CLOSED
    assert after(True, True, True, False, False).state is CircuitState.CLOSED
    opened = after(True, True, False, False)
    assert opened.state is CircuitState.OPEN
    assert opened.reason == "2 of 4 calls failed within 30 s, the last: HTTP 503"
    assert opened.left_alone(12.9)
    assert not opened.left_alone(13.0)


def test_few_calls_and_old_ones_open_nothing() -> None:
    assert after(False, False, False).state is CircuitState.CLOSED
    assert after(*[False] * 3, gap_s=11).state is CircuitState.CLOSED
    # Four failures, never four within the window.
    assert after(*[False] * 12, gap_s=11).state is CircuitState.CLOSED
    assert after(*[False] * 4, gap_s=9).state is CircuitState.OPEN


def test_one_call_tries_it_and_its_answer_closes_it() -> None:
    opened = after(*[False] * 4)
    assert opened.begun(5.0, LONGEST_S) is None
    probing = opened.begun(13.0, LONGEST_S)
    assert probing is not None
    assert probing.state is CircuitState.HALF_OPEN
    assert probing.begun(13.0, LONGEST_S) is None
    closed = probing.answered(probing.epoch, 14.0, BREAKER)
    assert (closed.state, closed.counts, closed.reason) == (CircuitState.CLOSED, (), "")
    assert closed.begun(14.0, LONGEST_S) is closed


def test_each_failed_try_doubles_the_wait_up_to_a_bound() -> None:
    circuit, now = after(*[False] * 4), 3.0
    waits = []
    for _ in range(8):
        waits.append(circuit.due_at - now)
        now = circuit.due_at
        probing = circuit.begun(now, LONGEST_S)
        assert probing is not None
        circuit = probing.failed(probing.epoch, now, BREAKER, "no answer")
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    patient = BREAKER.model_copy(update={"open_s": 900.0})
    opened = after(*[False] * 4, breaker=patient)
    assert opened.due_at == 903


def test_a_target_that_fails_soon_after_it_was_closed_waits_longer_and_one_that_held_does_not() -> None:
    probing = after(*[False] * 4).begun(13.0, LONGEST_S)
    assert probing is not None
    closed = probing.answered(probing.epoch, 13.0, BREAKER)

    def failing_at(start: float) -> Circuit:
        circuit = closed
        for second in range(4):
            circuit = circuit.failed(circuit.epoch, start + second, BREAKER, "x")
        return circuit

    assert failing_at(14.0).due_at - 17.0 == 20
    assert failing_at(60.0).due_at - 63.0 == 10


def test_a_call_of_before_says_nothing_later() -> None:
    circuit = Circuit()
    old = circuit.epoch
    opened = after(*[False] * 4)
    assert opened.answered(old, 5.0, BREAKER) is opened
    assert opened.failed(old, 5.0, BREAKER, "late") is opened
    probing = opened.begun(13.0, LONGEST_S)
    assert probing is not None
    assert probing.answered(old, 14.0, BREAKER) is probing
    assert probing.failed(old, 14.0, BREAKER, "late") is probing
    assert probing.given_up(old, 14.0) is probing


def test_a_try_that_is_given_up_leaves_its_place_and_one_that_is_lost_does_in_time() -> None:
    probing = after(*[False] * 4).begun(13.0, LONGEST_S)
    assert probing is not None
    released = probing.given_up(probing.epoch, 14.0)
    assert not released.left_alone(14.0)
    assert released.begun(14.0, LONGEST_S) is not None
    assert probing.left_alone(72.9)
    other = probing.begun(73.0, LONGEST_S)
    assert other is not None
    # The lost one comes after all: another has its place.
    assert other.failed(probing.epoch, 74.0, BREAKER, "late") is other


def test_what_is_given_up_counts_neither_way() -> None:
    circuit = after(True, False, False)
    assert circuit.given_up(circuit.epoch, 3.0) is circuit


def test_routes_with_other_windows_share_a_circuit() -> None:
    short = BREAKER.model_copy(update={"window_s": 2.0})
    circuit = Circuit()
    for second in range(6):
        circuit = circuit.failed(circuit.epoch, second * 3.0, short, "x")
    assert circuit.state is CircuitState.CLOSED
    # The other route's window reaches back further; what the short one needs no more is kept for it once it has asked.
    long = circuit.failed(circuit.epoch, 15.0, BREAKER, "x")
    for second in range(16, 19):
        long = long.failed(long.epoch, float(second), BREAKER, "x")
    assert long.state is CircuitState.OPEN


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=60),
    st.floats(0.05, 1),
    st.integers(1, 20),
    st.floats(0.5, 60),
)
def test_it_is_open_only_where_the_window_says_so(
    calls: list[tuple[bool, float]], ratio: float, least: int, window_s: float
) -> None:
    breaker = Breaker(failure_ratio=ratio, min_calls=least, window_s=window_s)
    circuit, now = Circuit(), 0.0
    seen: list[tuple[float, bool]] = []
    for answered, gap in calls:
        now += gap
        seen.append((now, answered))
        if answered:
            circuit = circuit.answered(circuit.epoch, now, breaker)
        else:
            circuit = circuit.failed(circuit.epoch, now, breaker, "x")
        # A slice of the window is counted or left out as a whole.
        slack = window_s / 30 + 1e-9
        surely = [ok for at, ok in seen if at > now - window_s + slack]
        if circuit.state is CircuitState.OPEN:
            possible = [ok for at, ok in seen if at > now - window_s - slack]
            assert len(possible) >= least
            assert not answered
            assert possible.count(False) >= ratio * len(surely) - 1e-9
            return
        certain = all(at > now - window_s + slack or at <= now - window_s - slack for at, _ in seen)
        if certain and not answered and len(surely) >= least:
            assert surely.count(False) < ratio * len(surely)


@dataclass
class Flight:
    epoch: int
    began: float = field(default=0.0)


class AnyTraffic(RuleBasedStateMachine):
    """Calls that begin and end in any order, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.flights: list[Flight] = []

    @rule(seconds=st.floats(0, 120))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_call_begins(self) -> None:
        alone = self.circuit.left_alone(self.now)
        begun = self.circuit.begun(self.now, LONGEST_S)
        assert (begun is None) == alone
        if begun is None:
            return
        if self.circuit.state is not CircuitState.CLOSED:
            # Nobody else tries it until this one ends or is given up for lost.
            assert begun.left_alone(self.now + LONGEST_S - 0.001)
        self.circuit = begun
        self.flights.append(Flight(begun.epoch, self.now))

    @rule(which=st.integers(0, 20), how=st.sampled_from(["answered", "failed", "given_up"]))
    def a_call_ends(self, which: int, how: str) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(which % len(self.flights))
        before = self.circuit
        if how == "answered":
            self.circuit = before.answered(flight.epoch, self.now, BREAKER)
        elif how == "failed":
            self.circuit = before.failed(flight.epoch, self.now, BREAKER, "x")
        else:
            self.circuit = before.given_up(flight.epoch, self.now)
        if flight.epoch != before.epoch:
            assert self.circuit is before
        if how == "answered" and flight.epoch == before.epoch:
            assert self.circuit.state is CircuitState.CLOSED

    @invariant()
    def it_is_tried_again_in_bounded_time(self) -> None:
        if self.circuit.state is not CircuitState.CLOSED:
            assert self.circuit.due_at <= self.now + max(LONGEST_OPEN_S, LONGEST_S)
            assert self.circuit.reason
        assert len(self.circuit.counts) <= 3600
        assert sum(count.calls >= count.failures >= 0 for count in self.circuit.counts) == len(self.circuit.counts)


AnyTraffic.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyTraffic = AnyTraffic.TestCase


@pytest.mark.parametrize("gap_s", [0.0001, 0.01, 0.3])
def test_busy_targets_cost_bounded_memory(gap_s: float) -> None:
    circuit = after(*[True] * 5000, gap_s=gap_s)
    assert len(circuit.counts) <= 31
    assert sum(count.calls for count in circuit.counts) >= min(5000, 29 / gap_s)
