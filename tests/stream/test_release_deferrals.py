"""A request that intake told to come later, at the release gate: it is told, and has its one result when it comes again."""

from __future__ import annotations

import msgspec
from penstock.bus import MemoryBus
from penstock.contracts.records import LlmResult, Refusal

from services.guardrails.adapters import MemoryReleases
from tests.stream.test_guardrails import CATALOGUE, CLOCK, completion, publish, refusal, running


def deferral(request_id: str, event_id: str) -> Refusal:
    return msgspec.structs.replace(
        refusal(request_id, "rejected"), event_id=event_id, stage="intake", code="rate_limited", retry_after_ms=250
    )


async def test_a_request_that_comes_again_has_its_result_and_nothing_is_told_after_that() -> None:
    bus = MemoryBus(CATALOGUE, CLOCK)

    async def told() -> list[LlmResult]:
        await bus.settled("guardrails-release", ["completions", "refusals"])
        return [bus.codec.decode("llm-results", message.value) for message in bus.messages("llm-results")]  # type: ignore[misc]

    async with running(bus, MemoryReleases()):
        await publish(bus, "refusals", deferral("r", "first"), deferral("r", "second"))
        first = await told()
        assert [(result.code, result.retry_after_ms) for result in first] == [("rate_limited", 250)] * 2
        assert len({result.event_id for result in first}) == 2
        await publish(bus, "completions", completion("r", "an answer"))
        assert [result.status for result in await told()] == ["rejected", "rejected", "completed"]
        # One that the log held back, or gives again.
        await publish(bus, "refusals", deferral("r", "late"))
        assert len(await told()) == 3
