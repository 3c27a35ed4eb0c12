"""Alerting as a whole, from the log to Alertmanager, a webhook server and a mail server, while these go away and fail:
none is lost, and none is delivered twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from penstock.bus import MemoryBus
from penstock.clock import SystemClock
from penstock.config.alerting import Receiver
from penstock.contracts.catalogue import Catalogue

from tests.integration.real_receivers import SECRET, active, alertmanager, free_port, verified, webhook_server
from tests.stream.test_alerting import ended, entry_of, fresh, publish, running

NAMES = ("alertmanager", "hook", "mail")


class Postbox:
    """A mail server's handler, which takes nothing for now, then everything."""

    def __init__(self) -> None:
        self.down = True
        self.refused = 0
        self.identities: list[str] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.down:
            self.refused += 1
            return "451 not now"
        head = envelope.content.decode().split("\r\n\r\n")[0]
        self.identities += [line for line in head.split("\r\n") if line.startswith("Message-ID:")]
        return "250 taken"


@pytest.fixture
def bus(catalogue: Catalogue) -> MemoryBus:
    return MemoryBus(catalogue, SystemClock())


async def until_all(bus: MemoryBus, outcome: str, count: int, names: tuple[str, ...] = NAMES) -> None:
    async with asyncio.timeout(60):
        while any(len(ended(bus, outcome, name)) < count for name in names):
            await asyncio.sleep(0.05)


async def test_receivers_that_go_away_and_fail_lose_none_and_get_none_twice(bus: MemoryBus, tmp_path: Path) -> None:
    port, mail_port = free_port(), free_port()
    postbox = Postbox()
    mail = Controller(postbox, hostname="127.0.0.1", port=mail_port)
    mail.start()
    down = tmp_path / "down"
    down.touch()
    try:
        async with webhook_server(tmp_path) as hook:
            receivers = [
                Receiver(name="alertmanager", type="alertmanager", url=f"http://127.0.0.1:{port}", timeout_s=5.0),
                Receiver(name="hook", type="webhook", url=hook, secret_env="SIGNING", timeout_s=10.0),
                Receiver(name="mail", type="email", url=f"smtp://127.0.0.1:{mail_port}", timeout_s=5.0,
                         sender="alerts@example.com", to=("oncall@example.com",)),
            ]  # fmt: skip
            began = [fresh(f"a{number}") for number in range(4)]
            async with running(bus, entry_of(*receivers, group_by=["fingerprint"]), environ={"SIGNING": SECRET}):
                await publish(bus, *began)
                await until_all(bus, "failed", 4)
                down.unlink()
                postbox.down = False
                async with alertmanager(tmp_path, port) as address:
                    await until_all(bus, "delivered", 4)
                    assert {each["labels"]["fingerprint"] for each in await active(address)} == {
                        alert.fingerprint for alert in began
                    }
                # Killed; what comes meanwhile is there once it is back.
                later = [fresh(f"b{number}") for number in range(2)]
                await publish(bus, *later)
                await until_all(bus, "failed", 6, ("alertmanager",))
                async with alertmanager(tmp_path, port) as address:
                    await until_all(bus, "delivered", 6)
                    assert {each["labels"]["fingerprint"] for each in await active(address)} == {
                        alert.fingerprint for alert in later
                    }
                    over = [
                        fresh(f"c{number}", fingerprint=alert.fingerprint, status="resolved",
                              occurred_at=alert.occurred_at + timedelta(seconds=1))
                        for number, alert in enumerate(later)
                    ]  # fmt: skip
                    await publish(bus, *over)
                    await until_all(bus, "delivered", 8)
                    async with asyncio.timeout(30):
                        while await active(address):
                            await asyncio.sleep(0.1)
    finally:
        mail.stop()
    for name in NAMES:
        delivered = ended(bus, "delivered", name)
        assert delivered == Counter(alert.event_id for alert in [*began, *later, *over])
        assert not ended(bus, "dead", name)
    told = [alert["event_id"] for each in verified(tmp_path) for alert in each["body"]["alerts"]]
    assert sorted(told) == sorted(alert.event_id for alert in [*began, *later, *over])
    assert len(set(postbox.identities)) == len(postbox.identities) == 8
    assert postbox.refused >= 4
