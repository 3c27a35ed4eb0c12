"""How long a request will be under way, from who stands in the queue of its route and how fast that is served. Pure.

A request stands in the queue of its route from when it is first decided about until its result. How fast a queue is served
is measured in epochs of time in which somebody stood in it. Those in which requests waited for each other show what it can
do. Where there are none, it can do what it did in the fastest one at least: a maximum over a window, as that of BBR's
bottleneck bandwidth (Cardwell, Cheng, Gunn, Yeganeh and Jacobson, 2016), which does not take what is asked for what could be
served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.contracts.records import Context, Purpose

__all__ = [
    "FREE", "STARTUP_GAIN", "Epoch", "Estimate", "Standing", "TooLong", "estimate", "late_reason", "queue_of", "too_long",
]  # fmt: skip

STARTUP_GAIN = 2.89
"""2/ln 2: by so much more than was ever seen a queue without signs of being full is thought to serve (BBR's start-up)."""
FREE = 32
"""So many are let into a queue of which it is not known what it can serve: they show it."""
_WINDOW_US = 600 * 1_000_000
"""Epochs that ended earlier tell nothing of today."""
_STALL_US = 10 * 1_000_000
"""So long a queue may go without a delivery before it is thought to be slower than it was."""
_FULL_LENGTH = 8
_FULL_FACTOR = 3.0
_FULL_MISSED = 0.1
_SAFETY = 1.2
"""Where more is asked than can be served, all who are let in stand at the edge of their deadlines: half would be late."""
_LEAST_WAIT_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Epoch:
    """A span of service of one queue.

    Attributes:
        closed_us: when it ended, us since the epoch.
        done: requests that were served in it.
        busy_us: time of it in which the queue was not empty.
        area_us: sum over that time of how many stood in the queue.
        missed: requests whose deadlines passed in it.
    """

    closed_us: int
    done: int
    busy_us: int
    area_us: int
    missed: int = 0

    @property
    def rate(self) -> float:
        """Requests served in a second of busy time."""
        return self.done * 1e6 / max(1, self.busy_us)

    @property
    def length(self) -> float:
        """How many stood in the queue, on average over the busy time."""
        return self.area_us / max(1, self.busy_us)

    @property
    def sojourn_us(self) -> float:
        """How long one of them stood there, by Little's law."""
        return self.area_us / max(1, self.done)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a request sees when it takes its place in the queue of its route, itself included.

    Attributes:
        added: whether it stands there only now.
        mine: whether it stands there by this place in the log, and not by another send.
        own: of its team and class of service.
        teams: teams of its class that have any.
        same: of its class.
        before: of the classes that go before it.
        now_us: present, us since the epoch, on Redis' clock like all instants here.
        last_us: when the last one was served, or the queue last began.
        base_us: what requests take that come to an empty queue, on average; 0 where that is not known.
        epochs: the newest first.
    """

    added: bool
    mine: bool
    own: int
    teams: int
    same: int
    before: int
    now_us: int
    last_us: int
    base_us: int = 0
    epochs: Sequence[Epoch] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a request will be under way.

    Attributes:
        ahead: requests that will be served before it.
        rate: that the queue serves, a second.
        took_us: until its result, us, a fifth more than the mean.
        measured: whether requests have waited for each other at this rate; else it may turn out faster.
    """

    ahead: int
    rate: float
    took_us: int
    measured: bool


@dataclass(frozen=True, slots=True)
class TooLong:
    """The queue outlasts a request's deadline.

    Attributes:
        ahead: as in :class:`Estimate`.
        estimate_ms: until its result would be there.
        left_ms: until its deadline.
        wait_us: when it would fit, unless others come first.
    """

    ahead: int
    estimate_ms: int
    left_ms: int
    wait_us: int


def estimate(standing: Standing) -> Estimate | None:
    """Return how long the request will be under way; None where nothing is known of what its queue can serve.

    Classes are served one after another and the teams of a class in turn, so what goes before a request of a team with n in
    the queue is n of each other team of its class at most.
    """
    position = standing.before + min(standing.own * standing.teams, standing.same)
    epochs = [each for each in standing.epochs if standing.now_us - each.closed_us <= _WINDOW_US]
    if not epochs or position < 1:
        return None
    full = [each for each in epochs if _full(each, standing.base_us)]
    if full:
        rate = sum(each.done for each in full) * 1e6 / max(1, sum(each.busy_us for each in full))
    elif position <= FREE:
        return None
    else:
        best = max(epochs, key=lambda each: each.rate)
        rate = best.rate * min(max(1.0, position / max(1.0, best.length)), STARTUP_GAIN)
    patience_us = max(_STALL_US, _FULL_FACTOR * standing.base_us)
    rate *= min(1.0, patience_us / max(1, standing.now_us - standing.last_us))
    took_us = _SAFETY * max(position * 1e6 / rate, float(standing.base_us))
    return Estimate(position - 1, rate, round(took_us), bool(full))


def too_long(estimated: Estimate, left_us: int, base_us: int) -> TooLong | None:
    """Return what a request is told whose deadline, ``left_us`` from now, the queue outlasts; None where it does not.

    One that nobody is ahead of waits for nobody: how long its own answer takes is not foreseen.

    Args:
        base_us: as in :class:`Standing`.
    """
    queued_us = round(_SAFETY * (estimated.ahead + 1) * 1e6 / estimated.rate)
    if estimated.ahead < 1 or queued_us <= left_us:
        return None
    wait_us = queued_us - left_us
    if not estimated.measured:
        # More is known when those have been served that show it.
        wait_us = min(wait_us, max(_LEAST_WAIT_US, base_us))
    return TooLong(estimated.ahead, round(estimated.took_us / 1000), round(left_us / 1000), wait_us)


def queue_of(context: Context) -> str:
    """Return the name of the queue that a request stands in: its route, or that of the route's requests for vectors, which
    ask no model and are served by themselves.
    """
    return f"{context.route}:{Purpose.EMBED}" if context.purpose == Purpose.EMBED else context.route


def late_reason(late: TooLong, retry_after_ms: int) -> str:
    """Return why a request is refused whose deadline the queue outlasts, and when to send it again."""
    return (
        f"{late.ahead:,} requests are ahead of it: its answer is expected within {late.estimate_ms / 1000:.1f} s, and its "
        f"deadline is in {late.left_ms / 1000:.1f} s; send it again in {retry_after_ms / 1000:.3f} s, or with a later one"
    )


def _full(epoch: Epoch, base_us: int) -> bool:
    """Return whether requests waited for each other in ``epoch``: they took much longer than when they did not, or some
    waited until their deadlines had passed.
    """
    waited = epoch.length >= _FULL_LENGTH and epoch.sojourn_us >= _FULL_FACTOR * base_us > 0
    return waited or epoch.missed >= max(1.0, _FULL_MISSED * epoch.done)
