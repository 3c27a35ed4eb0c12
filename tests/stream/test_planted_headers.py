"""Credentials in headers and addresses of requests: none is in an answer, an event, a dead letter, a metric or the log."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from penstock.bus import Event, Hop, MemoryBus, Outcome, Reject, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import LlmRequest, Message
from penstock.redaction import Redaction
from penstock.settings import ServiceSettings
from prometheus_client import generate_latest

from services.edge.protocol import Headers, Ticket
from tests.unit.edge_desk import KEY, MemoryDesk, app_of, front_of

PLANTED = "pl4nted0123456789"
CREDENTIALS = {
    "cookie": f"session={PLANTED}",
    "x-api-key": PLANTED,
    "proxy-authorization": f"Basic {PLANTED}",
    "x-auth-token": PLANTED,
}
CHAT = {"model": "default", "messages": [{"role": "user", "content": "How do I reset it?"}]}


class BrokenDesk(MemoryDesk):
    """A desk with a defect, which tells what it should not."""

    async def submit(self, request: LlmRequest, headers: Headers = ()) -> Ticket:
        raise RuntimeError(f"could not use https://user:{PLANTED}@host as Bearer {PLANTED}")


def as_logged(entries: Sequence[MutableMapping[str, Any]]) -> str:
    """Log entries as a service prints them."""
    redaction, lines = Redaction(), []
    for entry in entries:
        event = redaction.event(None, "", structlog.processors.format_exc_info(None, "", entry))
        lines.append(redaction.line(None, "", structlog.processors.JSONRenderer()(None, "", dict(event))))
    return "\n".join(lines)


def client_of(desk: MemoryDesk) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app_of(front_of(desk)), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://edge", headers=CREDENTIALS)


async def test_the_edge_shows_no_credential(caplog: pytest.LogCaptureFixture) -> None:
    desk, chat = MemoryDesk(), "/v1/chat/completions"
    whose = {"authorization": f"Bearer {KEY.text}"}
    wrong = {"authorization": f"Bearer psk_{KEY.id}_{PLANTED}"}
    with structlog.testing.capture_logs() as entries:
        async with client_of(desk) as client, client_of(BrokenDesk()) as broken:
            answers = [
                await client.post(chat, json=CHAT, headers=wrong),
                await client.post(chat, json=CHAT, headers={"authorization": f"Basic {PLANTED}"}),
                await client.post(f"{chat}?api_key={PLANTED}", json=CHAT, headers=whose),
                await client.get(f"/v1/requests/no-such?token={PLANTED}", headers=whose),
                await client.post(chat, content=b"{", headers={**whose, "content-type": "application/json"}),
                await broken.post(chat, json=CHAT, headers=whose),
            ]
    assert [answer.status_code for answer in answers] == [401, 401, 200, 404, 400, 500]
    secret = KEY.text.rpartition("_")[2]
    seen = {
        "answers": "".join(f"{answer.headers}{answer.text}" for answer in answers),
        "events": msgspec.json.encode([*desk.requests.values()]).decode() + repr(desk.headers),
        "metrics": generate_latest().decode(),
        "log": as_logged(entries) + caplog.text,
    }
    assert len(desk.requests) == 1
    assert "could not use https://***@host as Bearer ***" in seen["log"]
    assert [place for place, text in seen.items() if PLANTED in text or secret in text] == []


async def test_a_dead_letter_shows_no_credential() -> None:
    async def rejecting(events: Sequence[Event[LlmRequest]]) -> Sequence[Outcome]:
        return [Reject("no_good", "because") for _ in events]

    clock = ManualClock()
    bus = MemoryBus(Catalogue.load(), clock)
    request = LlmRequest(
        event_id="e",
        request_id="r",
        tenant_id="support",
        occurred_at=clock.now(),
        causation_id="",
        messages=[Message(role="user", content="How do I reset it?")],
    )
    headers = [("traceparent", b"00-1-2-01"), *((name, value.encode()) for name, value in CREDENTIALS.items())]
    for value in (bus.codec.encode("llm-requests", request), b"{not avro}"):
        await bus.append("llm-requests", b"r", value, headers)
    hop = Hop(service="intake", group="g", topics=("llm-requests",), handler=rejecting)
    stop = asyncio.Event()
    running = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop))
    letters = await bus.collect("dlq-intake", 2)
    stop.set()
    await asyncio.wait_for(running, 10)
    for letter in letters:
        # What leads back to the trace stays.
        assert letter.record.origin_headers == {"traceparent": b"00-1-2-01"}
        assert letter.message.headers == (("traceparent", b"00-1-2-01"),)
