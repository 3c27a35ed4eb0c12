"""On real Kafka: a policy tried in shadow beside the one in force, and the report of what it would have changed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from penstock.bus import KafkaBus, Producer
from penstock.config.kinds import Policy
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.records import AdmittedRequest, ConfigEntry, Context, Message

Cli = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE_S = 60.0


@pytest.fixture
def guardrails(deployed: Mapping[str, str], tmp_path: Path) -> Iterator[None]:
    """The service as a process."""
    with (tmp_path / "guardrails.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.guardrails"],
            env={**os.environ, **deployed, "SESSION_TIMEOUT_MS": "6000"},
            cwd=Path(__file__).parents[2], stdout=log, stderr=log,
        )  # fmt: skip
        yield
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


async def publish(producer: Producer, policy: Policy) -> None:
    entry = ConfigEntry(
        event_id=new_id(), request_id="", tenant_id="", occurred_at=datetime.now(UTC), causation_id="", kind="policies",
        name=policy.name, version=policy.version, content=policy.canonical,
    )  # fmt: skip
    await (await producer.send("config-policies", policy.name, entry))


def admitted(request_id: str, policy: str, text: str) -> AdmittedRequest:
    now = datetime.now(UTC)
    return AdmittedRequest(
        event_id=new_id(), request_id=request_id, tenant_id="support", occurred_at=now, causation_id="",
        context=Context(requested_at=now, policy_name=policy), messages=[Message(role="user", content=text)],
    )  # fmt: skip


async def test_a_policy_in_shadow_changes_nothing_and_the_report_says_what_it_would(
    guardrails: None, bus: KafkaBus, catalogue: Catalogue, deployed: Mapping[str, str], penstock_cli: Cli
) -> None:
    started = datetime.now(UTC).isoformat()
    run = uuid.uuid4().hex[:8]
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    producer = Producer(bus.producer(), codec, "test")
    banned = {"banned_words": {"action": "block", "words": ["falcon"]}}
    await publish(producer, Policy.model_validate({"name": f"now-{run}", "input": {"pii": {"action": "mask"}}}))
    await publish(
        producer, Policy.model_validate({"name": f"next-{run}", "shadows": f"now-{run}", "input": {**banned}})
    )
    for number, text in enumerate(("hello", "the falcon", "ann@example.org")):
        await (
            await producer.send("requests-admitted", f"{run}-{number}", admitted(f"{run}-{number}", f"now-{run}", text))
        )

    give_up = time.monotonic() + DEADLINE_S
    while True:
        arguments = ["guard", "report", "--policy", f"next-{run}", "--since", started]
        report = await asyncio.to_thread(penstock_cli, [*arguments, "--json"], deployed)
        tried = json.loads(report.stdout)["tried"] if report.returncode == 0 else []
        if tried and tried[0]["verdicts"] == 3:
            break
        assert time.monotonic() < give_up, report.stdout + report.stderr
        await asyncio.sleep(0.2)
    [one] = tried
    assert (one["policy"], one["stage"], one["mode"]) == (f"next-{run}", "input", "shadow")
    assert (one["changed"], one["stricter"], one["milder"]) == (2, 1, 1)
    outcomes = {(outcome["done"], outcome["would"]): outcome["request_ids"] for outcome in one["outcomes"]}
    assert outcomes == {
        ("allow", "allow"): [],
        ("allow", "block"): [f"{run}-1"],
        ("mask", "allow"): [f"{run}-2"],
    }
    assert one["rules"] == {"banned_words": {"found": 1, "decided": 1}}
    shown = await asyncio.to_thread(penstock_cli, arguments, deployed)
    assert f"allow -> block, 1: {run}-1" in shown.stdout
    # Nothing followed from the candidate: the request went on.
    going_on = await asyncio.to_thread(
        penstock_cli, ["tail", "requests-screened", "--no-follow", "--request", f"{run}-1"], deployed
    )
    assert "the falcon" in going_on.stdout
