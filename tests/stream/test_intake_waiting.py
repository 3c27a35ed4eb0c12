"""What waits for room in the flow, on the in-memory log and a ledger in memory: order, deadlines, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from penstock.bus import MemoryBus, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import LlmRequest, Refusal
from penstock.settings import ServiceSettings

from services.intake.app import admission_hop, waiting_hop
from services.intake.core import Claim, Decision, Judgement, Limits
from services.intake.settlement import Charge, Release
from services.intake.waiting_room import WaitingRoom
from tests.stream.test_intake import a_request
from tests.unit.test_intake_core import PLANE


class Flow:
    """A ledger in memory that lets ``room`` requests of a team into the flow."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.running: dict[str, set[str]] = {}
        self.waiting: dict[tuple[str, str], list[str]] = {}
        self.claimed: dict[str, Claim] = {}

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        return [self._one(each) for each in judgements]

    def _one(self, judgement: Judgement) -> Claim:
        request = judgement.request
        if request.request_id in self.claimed:
            return Claim(Decision.DUPLICATE)
        if judgement.refused is not None:
            return self.claimed.setdefault(request.request_id, Claim(Decision.REFUSED, refused=judgement.refused))
        running = self.running.setdefault(request.tenant_id, set())
        behind = self.waiting.setdefault((request.tenant_id, request.priority), [])
        if len(running) >= self.room or (behind and not judgement.waited):
            if not judgement.waited:
                behind.append(request.request_id)
            return Claim(Decision.WAITING)
        running.add(request.request_id)
        return self.claimed.setdefault(request.request_id, Claim(Decision.ADMITTED, judgement.at))

    async def settle(self, settlements: Sequence[Charge | Release], now: datetime) -> None:
        raise NotImplementedError

    async def leave_room(self, left: Sequence[tuple[str, str, str]]) -> None:
        for team, priority, request_id in left:
            behind = self.waiting[team, priority]
            if request_id in behind:
                del behind[: behind.index(request_id) + 1]


class Intake:
    """Both hops of intake and what they wrote."""

    def __init__(self, room: int) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(Catalogue.load(), self.clock)
        self.flow = Flow(room)
        self.room = WaitingRoom(self.flow, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        limits = Limits()
        hops = [
            admission_hop(PLANE, self.flow, limits, self.clock),
            waiting_hop(PLANE, self.flow, self.room, limits, self.clock),
        ]
        task = asyncio.create_task(run_hops(hops, self.bus, self.bus.codec, SystemClock(), ServiceSettings(), stop))
        try:
            yield
        finally:
            stop.set()
            # Those that look for room are not waited for.
            await asyncio.wait_for(task, ServiceSettings().stop_timeout_s / 2)

    async def send(self, *requests: LlmRequest) -> None:
        for request in requests:
            await self.bus.publish("llm-requests", request.conversation_id or request.request_id, request)

    def written(self, topic: str) -> list[Any]:
        return [self.bus.codec.decode(topic, message.value) for message in self.bus.messages(topic)]

    def ids(self, topic: str) -> list[str]:
        return [record.request_id for record in self.written(topic)]

    async def look(self, until: Callable[[], bool]) -> None:
        """Let those that wait look for room until ``until`` holds."""
        async with asyncio.timeout(10):
            while not until():
                await self.room.tell()
                self.clock.advance(0.05)
                await asyncio.sleep(0)


def in_conversation(number: int, **changes: Any) -> LlmRequest:
    return a_request(f"r{number:02}", conversation_id="c", **changes)


async def test_what_is_beyond_a_teams_room_waits_in_order_and_another_team_does_not_notice() -> None:
    intake = Intake(room=3)
    async with intake.running():
        await intake.send(*(in_conversation(number) for number in range(10)))
        await intake.bus.collect("requests-waiting", 7)
        await intake.send(a_request("other", tenant_id="research"))
        await intake.bus.collect("requests-admitted", 4)
        assert intake.ids("requests-admitted") == ["r00", "r01", "r02", "other"]
        for ended in range(7):
            intake.flow.running["support"].discard(f"r{ended:02}")
            await intake.look(lambda room=5 + ended: len(intake.bus.messages("requests-admitted")) >= room)
        # Nobody waits any more: the next one goes straight in where there is room.
        await intake.look(lambda: not intake.flow.waiting["support", "standard"])
        intake.flow.running["support"].clear()
        await intake.send(in_conversation(10))
        await intake.bus.collect("requests-admitted", 12)
    assert intake.ids("requests-admitted") == ["r00", "r01", "r02", "other", *(f"r{n:02}" for n in range(3, 11))]
    assert intake.ids("requests-waiting") == [f"r{n:02}" for n in range(3, 10)]
    assert {message.key for message in intake.bus.messages("requests-waiting")} == {b"support/standard"}
    assert intake.ids("refusals") == []


async def test_what_comes_after_one_that_waits_waits_behind_it_though_there_is_room_meanwhile() -> None:
    intake = Intake(room=1)
    async with intake.running():
        await intake.send(in_conversation(0), in_conversation(1))
        await intake.bus.collect("requests-waiting", 1)
        # Room for both: the one that waits has not been told of it yet.
        intake.flow.room = 3
        await intake.send(in_conversation(2), a_request("urgent", priority="interactive"))
        await intake.bus.collect("requests-waiting", 2)
        await intake.look(lambda: len(intake.bus.messages("requests-admitted")) >= 3)
        intake.flow.running["support"].clear()
        await intake.look(lambda: len(intake.bus.messages("requests-admitted")) >= 4)
    # Another class of the team waits for nobody of this one.
    assert sorted(intake.ids("requests-waiting")) == ["r01", "r02"]
    assert [one for one in intake.ids("requests-admitted") if one != "urgent"] == ["r00", "r01", "r02"]


async def test_a_deadline_that_passes_while_it_waits_ends_it_and_those_behind_go_on() -> None:
    intake = Intake(room=1)
    async with intake.running():
        soon = intake.clock.now() + timedelta(seconds=2)
        await intake.send(in_conversation(0), in_conversation(1, deadline_at=soon), in_conversation(2))
        await intake.bus.collect("requests-waiting", 2)
        intake.clock.advance(2.5)
        await intake.look(lambda: intake.ids("refusals") == ["r01"])
        intake.flow.running["support"].clear()
        await intake.look(lambda: intake.ids("requests-admitted") == ["r00", "r02"])
    (expired,) = intake.written("refusals")
    assert isinstance(expired, Refusal)
    assert (expired.status, expired.code) == ("expired", "expired")


async def test_what_waits_when_intake_stops_is_taken_up_by_the_next_one_and_nothing_is_lost() -> None:
    intake = Intake(room=1)
    async with intake.running():
        await intake.send(*(in_conversation(number) for number in range(4)))
        await intake.bus.collect("requests-waiting", 3)
    assert intake.ids("requests-admitted") == ["r00"]
    intake.flow.room = 9
    async with intake.running():
        await intake.look(lambda: len(intake.bus.messages("requests-admitted")) >= 4)
    assert intake.ids("requests-admitted") == ["r00", "r01", "r02", "r03"]
