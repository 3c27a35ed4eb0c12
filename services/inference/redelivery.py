"""The journal of a process: what was read before is found in the log, and what was in flight in Redis.

What stands in a partition when it is assigned may have been read before. Of that, the log is asked once, before anything
is taken from the partition, and Redis as well; a request that comes later costs neither. It may be a second sending of an
earlier one, by a stage before this that crashed: that one's end is known from the log, too, or from this process itself.
Writing is done in the background, in one round trip for all that is in flight, and no request waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.bus import Backlog, Event, KafkaUnavailable, Partition, Transient
from penstock.clock import Clock
from penstock.contracts.envelope import new_id
from penstock.contracts.records import GroundedRequest
from penstock.telemetry import get_logger, metrics

from services.inference.answered import AnsweredTail, Reading
from services.inference.calling import Call, Flight
from services.inference.flights import Flights, Left, Place, written
from services.inference.journal import FIRST, Earlier, Wasted
from services.inference.prompt import prompt_of
from services.inference.usage import estimated_usage

__all__ = ["KeptJournal"]

log = get_logger(__name__)

_INTERVAL_S = 0.25
"""What a call has used since it was last written is not known when its process dies."""
_LONGEST_READ_S = 30.0
_PATIENCE_S = 10.0
"""How long Redis is asked again for what others were at: a process that has just come up, or a busy machine, may miss an
answer that was there in time. After that what died is not paid for, and requests are answered all the same."""
_AGAIN_S = 0.5
_REMEMBERED = 32_768
"""Requests that this process ended lately: they may come a second time, and when the process gets a partition back, the log
may not have their ends yet. Each takes some 150 bytes."""
_TAKEN_OUT = 262_144
"""Places to take out that are kept at once: while Redis is away, what is over stays there until it expires."""
_OVERLAP_MS = 60_000
"""How long before now what was answered is looked up, even if all of it is committed: a stage that crashed sends again what
it had not committed once its consumer group has noticed."""


@dataclass(slots=True)
class _Open:
    """A flight that is kept.

    Attributes:
        wasted: calls on its request that died before.
        adopted: where these stand: taken out in the round trip that writes this.
        entry: what was written last.
        stands: an entry may stand in Redis: one is on its way, or is there.
    """

    flight: Flight
    wasted: tuple[Wasted, ...]
    adopted: list[Place] = field(default_factory=list)
    entry: bytes = b""
    stands: bool = False
    prompt_size: int | None = None

    def calls(self) -> tuple[Wasted, ...]:
        """Return what would be wasted if it ended now."""
        return *self.wasted, *(self._one(call) for call in self.flight.calls if call.has_used)

    def _one(self, call: Call) -> Wasted:
        if call.progress.usage is not None:
            return Wasted(call.target, call.progress.usage)
        request, pieces = self.flight.request, self.flight.pieces
        if self.prompt_size is None:
            self.prompt_size = prompt_of(request).size
        size = call.progress.answer_size
        if pieces is not None and call is self.flight.latest:
            size = max(size, pieces.size)
        most = request.sampling.max_completion_tokens
        return Wasted(call.target, estimated_usage(self.prompt_size, size, most))


class KeptJournal:
    """See the module.

    Args:
        flights: where processes write what they are at.
        tail: what has been answered.
        process: identity of this process; None makes one.
    """

    def __init__(self, flights: Flights, tail: AnsweredTail, clock: Clock, process: str | None = None) -> None:
        self.process = process or new_id()
        self._flights = flights
        self._tail = tail
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._broken: dict[str, tuple[Wasted, ...]] = {}
        self._ending: dict[str, _Open] = {}
        """Flights that have ended, and the log does not have it yet: who looks finds them in one place or the other."""
        self._ended: deque[Place] = deque(maxlen=_TAKEN_OUT)
        self._lately: OrderedDict[str, None] = OrderedDict()
        self._ends: dict[Partition, int] = {}
        self._left: dict[str, list[Left]] = {}
        self._adopting: dict[str, list[Place]] = {}
        self._awaited: dict[str, tuple[GroundedRequest, list[Left], asyncio.Future[list[Left]]]] = {}
        self._awaiting: asyncio.Task[None] | None = None
        self._since: tuple[int, frozenset[int]] = (0, frozenset())
        self._is_away = False

    # -- what was read before ----------------------------------------------------------------------------------------

    async def assigned(self, backlog: Mapping[Partition, Backlog]) -> None:
        """Look up what became of all that stands in ``backlog``.

        Raises:
            Transient: the log is away for now.
        """
        begun = [ahead.since_ms for ahead in backlog.values() if ahead.since_ms is not None]
        self._ends = {place: ahead.end for place, ahead in backlog.items() if ahead.end > ahead.next}
        self._left = {}
        if not self._awaited:
            self._tail.forget()
        if not backlog:
            return
        started = self._clock.monotonic()
        # In this order: a flight is taken out only once its completion is in the log.
        if self._ends:
            self._left = await self._others()
        now_ms = int(self._clock.now().timestamp() * 1000)
        self._since = min([*begun, now_ms - _OVERLAP_MS]), frozenset(place.partition for place in backlog)
        try:
            async with self._tail.reading(*self._since) as reading:
                complete = await reading.to_the_end(_LONGEST_READ_S)
        except (KafkaUnavailable, OSError, RuntimeError) as error:
            # A broker that has just come back may not know its topics yet.
            raise Transient(f"what was answered before cannot be read now: {error}") from error
        (log.info if complete else log.error)(
            "what was answered before is known" if complete else "not all of what was answered before is known",
            messages=sum(ahead.end - ahead.next for ahead in backlog.values()),
            in_flight_elsewhere=len(self._left),
            seconds=round(self._clock.monotonic() - started, 3),
        )

    async def earlier(self, event: Event[GroundedRequest]) -> Earlier:
        request = event.record
        broken = self._broken.pop(request.event_id, None)
        if broken is not None:
            # It was broken off in this very process, which tries again: the log was away.
            return Earlier(wasted=_counted(broken, "log"))
        if event.offset >= self._ends.get(Partition(event.topic, event.partition), 0):
            if not self._is_answered(request):
                return FIRST
            metrics.REDELIVERED.labels("answered").inc()
            return Earlier(answered=True)
        left = self._left.pop(request.event_id, [])
        if any(each.alive for each in left) and not self._is_answered(request):
            left = await self._outcome(request, left)
        places = [(each.process, request.event_id) for each in left]
        if self._is_answered(request):
            metrics.REDELIVERED.labels("answered").inc()
            self._ended += places
            return Earlier(answered=True)
        metrics.REDELIVERED.labels("generated").inc()
        if not places:
            return FIRST
        self._adopting[request.event_id] = places
        return Earlier(wasted=_counted([call for each in left for call in each.calls], "process"))

    def _is_answered(self, request: GroundedRequest) -> bool:
        return request in self._tail or request.event_id in self._lately

    async def _others(self) -> dict[str, list[Left]]:
        give_up = self._clock.monotonic() + _PATIENCE_S
        while True:
            try:
                return await self._flights.others(self.process)
            except Transient as error:
                if self._clock.monotonic() >= give_up:
                    log.warning("what died in mid-generation is not known and not accounted for", reason=str(error))
                    return {}
            await self._clock.sleep(_AGAIN_S)

    async def _outcome(self, request: GroundedRequest, left: list[Left]) -> list[Left]:
        """Wait until processes that are still at ``request`` have answered it, or are gone; return what they leave."""
        future: asyncio.Future[list[Left]] = asyncio.get_running_loop().create_future()
        self._awaited[request.event_id] = request, left, future
        if self._awaiting is None or self._awaiting.done():
            self._awaiting = asyncio.create_task(self._await_others())
        try:
            return await future
        finally:
            self._awaited.pop(request.event_id, None)

    async def _await_others(self) -> None:
        give_up = None
        try:
            # Again where one has come while the reader was closed.
            while self._awaited:
                async with self._tail.reading(*self._since) as reading:
                    while self._awaited:
                        try:
                            await self._look_at_others(reading)
                            give_up = None
                        except Transient:
                            now = self._clock.monotonic()
                            give_up = now + _PATIENCE_S if give_up is None else give_up
                            if now >= give_up:
                                raise
                        await reading.wait()
        except (Transient, KafkaUnavailable, OSError, RuntimeError) as error:
            log.warning("requests that others are still at are answered again", reason=str(error))
        finally:
            for _, left, future in self._awaited.values():
                if not future.done():
                    future.set_result(left)

    async def _look_at_others(self, reading: Reading) -> None:
        """Tell those that wait for others what came of that, where it is known."""
        awaited = dict(self._awaited)
        places = [(each.process, event_id) for event_id, (_, left, _) in awaited.items() for each in left]
        standing: dict[str, list[Left]] = {}
        for (_, event_id), known in zip(places, await self._flights.known(places), strict=True):
            if known is not None:
                standing.setdefault(event_id, []).append(known)
        # After that: whose flight is taken out has its completion in the log.
        await reading.to_the_end(_LONGEST_READ_S)
        for event_id, (request, _, future) in awaited.items():
            left = standing.get(event_id, [])
            if not future.done() and (self._is_answered(request) or not any(each.alive for each in left)):
                future.set_result(left)

    # -- what is in flight -------------------------------------------------------------------------------------------

    def opened(self, flight: Flight, wasted: Sequence[Wasted]) -> None:
        event_id = flight.request.event_id
        self._open[event_id] = _Open(flight, tuple(wasted), self._adopting.pop(event_id, []))

    def closed(self, flight: Flight) -> None:
        event_id = flight.request.event_id
        ended = self._open.pop(event_id, None)
        self._lately[event_id] = None
        if len(self._lately) > _REMEMBERED:
            self._lately.popitem(last=False)
        if ended is not None:
            self._ending[event_id] = ended

    def settled(self, request: GroundedRequest) -> None:
        event_id = request.event_id
        ended = self._ending.pop(event_id, None)
        if ended is not None:
            self._ended += [*ended.adopted, *([(self.process, event_id)] if ended.stands else [])]

    def broken_off(self, flight: Flight) -> None:
        event_id = flight.request.event_id
        ended = self._open.pop(event_id, None)
        if ended is None:
            return
        mine = [(self.process, event_id)] if ended.stands else []
        if calls := ended.calls():
            self._broken[event_id] = calls
            if places := [*ended.adopted, *mine]:
                self._adopting[event_id] = places
        else:
            self._ended += [*ended.adopted, *mine]

    async def run(self, stopping: asyncio.Event) -> None:
        """Write what is in flight, until ``stopping`` is set and nothing is."""
        while not stopping.is_set() or self._open:
            await self._clock.sleep(_INTERVAL_S)
            await self.write()

    async def write(self) -> None:
        """Write what has changed, in one round trip; nothing where nothing is in flight."""
        ended = list(self._ended)
        flights = self._ending | self._open
        if not flights and not ended:
            return
        # Those that wait for their model too: whoever gets their partition is to know that somebody is at them.
        entries = {event_id: written(one.calls()) for event_id, one in flights.items()}
        self._ended.clear()
        changed = {event_id: entry for event_id, entry in entries.items() if entry != flights[event_id].entry}
        adopted = [place for event_id in changed for place in flights[event_id].adopted]
        for event_id in changed:
            # Before it is so: what ends in the meantime is taken out by a later round trip.
            flights[event_id].stands = True
        try:
            await self._flights.write(self.process, changed, [*ended, *adopted])
        except Transient as error:
            self._ended.extendleft(reversed(ended))
            if not self._is_away:
                log.warning(
                    "what is in flight is not kept: if this process dies, its waste is not known", reason=str(error)
                )
            self._is_away = True
            return
        self._is_away = False
        for event_id, entry in changed.items():
            flights[event_id].entry, flights[event_id].adopted = entry, []

    async def close(self) -> None:
        """Leave to others what was broken off, and what the log may not have, and say that this process is gone."""
        if self._awaiting is not None:
            self._awaiting.cancel()
            await asyncio.gather(self._awaiting, return_exceptions=True)
        try:
            left = {event_id: written(calls) for event_id, calls in self._broken.items()}
            left |= {event_id: written(calls) for event_id, one in self._ending.items() if (calls := one.calls())}
            await self._flights.died(self.process, left, list(self._ended))
        except Transient as error:
            requests = len(self._broken) + len(self._ending)
            log.warning("what was broken off is not known to others", reason=str(error), requests=requests)


def _counted(calls: Sequence[Wasted], cause: str) -> tuple[Wasted, ...]:
    """Return ``calls`` after the metric has them, each once."""
    for call in calls:
        if not call.counted:
            tokens = call.usage.input_tokens + call.usage.output_tokens
            metrics.WASTED_TOKENS.labels(call.target.backend, call.target.model, cause).inc(tokens)
    return tuple(replace(call, counted=True) for call in calls)
