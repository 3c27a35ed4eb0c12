"""What earlier readings of a request have come to: a request that is read again is not answered twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.bus import Backlog, Event, Partition
from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest, Usage

from services.inference.calling import Flight

__all__ = ["FIRST", "Earlier", "Journal", "NoJournal", "Wasted"]


@dataclass(frozen=True, slots=True)
class Wasted:
    """A call that nobody was there any more to hear the answer of: what is known to have been used.

    Attributes:
        counted: the metric of wasted tokens has it already.
    """

    target: Target
    usage: Usage
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier readings of a request have come to.

    Attributes:
        answered: its completion stands in the log, so nothing is left to do.
        wasted: calls that died with their process; they are paid for, and the request is answered again.
    """

    answered: bool = False
    wasted: tuple[Wasted, ...] = ()


FIRST = Earlier()
"""Nothing came of earlier readings, or there are none."""


class Journal(Protocol):
    """Keeps what is in flight where it outlives the process.

    Every flight that is opened is closed or broken off, once. One that is closed is settled once the log has what it came
    to.
    """

    async def assigned(self, backlog: Mapping[Partition, Backlog]) -> None:
        """This process has got partitions: what stands in them may have been read before."""
        ...

    async def earlier(self, event: Event[GroundedRequest]) -> Earlier:
        """Return what earlier readings of the request have come to.

        Where another process that is alive is still at it, this waits for what comes of that.
        """
        ...

    def opened(self, flight: Flight, wasted: Sequence[Wasted]) -> None:
        """``flight`` begins, after what was ``wasted`` on its request: from now on its progress is kept."""
        ...

    def closed(self, flight: Flight) -> None:
        """``flight`` has ended with events that go to the log now."""
        ...

    def settled(self, request: GroundedRequest) -> None:
        """The log has what came of ``request``, whether there was a flight or none."""
        ...

    def broken_off(self, flight: Flight) -> None:
        """``flight`` was given up without events: its request will be read again, here or elsewhere."""
        ...


class NoJournal:
    """Knows of nothing: for tests, and for targets that cost nothing."""

    async def assigned(self, backlog: Mapping[Partition, Backlog]) -> None:
        return

    async def earlier(self, event: Event[GroundedRequest]) -> Earlier:
        return FIRST

    def opened(self, flight: Flight, wasted: Sequence[Wasted]) -> None:
        return

    def closed(self, flight: Flight) -> None:
        return

    def settled(self, request: GroundedRequest) -> None:
        return

    def broken_off(self, flight: Flight) -> None:
        return
