"""``penstock alerts`` on a real log, and its test alert through a running alerting."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from penstock.alerts import fingerprint
from penstock.bus import KafkaBus, Producer
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Alert, Record
from penstock.settings import KafkaSettings

from tests.integration.alerting_replicas import Replicas

Cli = Callable[..., subprocess.CompletedProcess[str]]


def drift_alert(team: str, title: str = "questions moved") -> Alert:
    segment = f"{team}|m1|v1|default"
    return Alert(
        event_id=uuid.uuid4().hex, request_id="", tenant_id=team, occurred_at=datetime.now(UTC), causation_id="",
        kind="drift", name="topic_shift", severity="critical", title=title, description="by 0.4",
        fingerprint=fingerprint("drift", team),
        labels={"team": team, "segment": segment, "signal": "prompt.topic"},
    )  # fmt: skip


async def publish(settings: KafkaSettings, topic: str, key: str, record: Record) -> None:
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
    async with KafkaBus(settings) as bus:
        await (await Producer(bus.producer(), codec, "test").send(topic, key, record))


def listed(penstock_cli: Cli, environment: Mapping[str, str], *options: str) -> list[dict[str, Any]]:
    run = penstock_cli(["alerts", "list", "--json", *options], environment)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


async def test_an_alert_is_listed_shown_acknowledged_silenced_and_free_again(
    kafka_settings: KafkaSettings, deployed: Mapping[str, str], penstock_cli: Cli
) -> None:
    team = f"team-{uuid.uuid4().hex[:6]}"
    alert = drift_alert(team, "questions moved \x1b[2J[red]")
    await publish(kafka_settings, "alerts", alert.fingerprint, alert)
    (found,) = listed(penstock_cli, deployed, "--team", team)
    assert (found["fingerprint"], found["status"], found["acknowledged"]) == (alert.fingerprint, "firing", None)
    assert listed(penstock_cli, deployed, "--team", team, "--kind", "cost") == []
    shown = penstock_cli(["alerts", "show", alert.fingerprint[:12]], deployed)
    assert "questions moved \\x1b[2J[red]" in shown.stdout, shown.stderr
    assert "\x1b" not in shown.stdout
    prefix = alert.fingerprint[:12]
    acknowledged = penstock_cli(
        ["alerts", "ack", prefix, "--for", "4h", "--comment", "a campaign", "--author", "ann"], deployed
    )
    assert acknowledged.returncode == 0, acknowledged.stderr
    (found,) = listed(penstock_cli, deployed, "--team", team)
    assert (found["acknowledged"]["author"], found["acknowledged"]["comment"]) == ("ann", "a campaign")
    tailed = penstock_cli(["tail", "drift-commands", "--no-follow", "--where"], deployed)
    (command,) = [each for each in map(json.loads, tailed.stdout.splitlines()) if each["tenant_id"] == team]
    assert (command["action"], command["segment"], command["signal"]) == (
        "rebase",
        f"{team}|m1|v1|default",
        "prompt.topic",
    )
    assert command["key"] == f"{team}|default"
    assert penstock_cli(["alerts", "unack", prefix], deployed).returncode == 0
    assert penstock_cli(["alerts", "unack", prefix], deployed).returncode == 1
    assert penstock_cli(["alerts", "ack", prefix, "--keep-reference"], deployed).returncode == 0
    tailed = penstock_cli(["tail", "drift-commands", "--no-follow"], deployed)
    assert tailed.stdout.count(f'"{team}|m1|v1|default"') == 1
    silenced = penstock_cli(
        ["alerts", "silence", "-m", f"team={team}", "--for", "2h", "--comment", "load test"], deployed
    )
    assert "of what fires now it covers 1" in silenced.stdout, silenced.stderr
    (found,) = listed(penstock_cli, deployed, "--team", team)
    silence_id = found["silence"]["silence_id"]
    assert silence_id[:10] in penstock_cli(["alerts", "silences"], deployed).stdout
    assert penstock_cli(["alerts", "unsilence", silence_id[:10]], deployed).returncode == 0
    (found,) = listed(penstock_cli, deployed, "--team", team)
    assert found["silence"] is None
    assert penstock_cli(["alerts", "resolve", prefix], deployed).returncode == 0
    assert listed(penstock_cli, deployed, "--team", team) == []
    assert penstock_cli(["alerts", "ack", prefix], deployed).returncode == 1


def test_what_is_not_there_is_one_line_and_exit_status_1(deployed: Mapping[str, str], penstock_cli: Cli) -> None:
    for command in (["show", "no-such"], ["ack", "no-such"], ["unsilence", "no-such"]):
        run = penstock_cli(["alerts", *command], deployed)
        assert run.returncode == 1
        assert "penstock alerts" in run.stderr
        assert "Traceback" not in run.stderr


@pytest.fixture
def alerting(project: Path, deployed: Mapping[str, str], tmp_path: Path) -> Iterator[Replicas]:
    """Alerting, until the test ends."""
    replicas = Replicas(project, deployed, tmp_path)
    yield replicas
    replicas.stop()


def test_the_test_alert_takes_the_way_of_all_alerts(
    deployed: Mapping[str, str], penstock_cli: Cli, alerting: Replicas
) -> None:
    alerting.start()
    arrived = penstock_cli(
        ["alerts", "test", "--team", "support", "--severity", "warning", "--timeout", "90"], deployed
    )
    assert arrived.returncode == 0, arrived.stderr + arrived.stdout
    assert "delivered" in arrived.stdout
    found = listed(penstock_cli, deployed, "--kind", "test", "--team", "support", "--all")
    assert {each["status"] for each in found} == {"resolved"}


def test_a_test_alert_that_reaches_nobody_says_so(deployed: Mapping[str, str], penstock_cli: Cli) -> None:
    lost = penstock_cli(["alerts", "test", "--timeout", "2"], deployed)
    assert lost.returncode == 1
    assert "does alerting run" in lost.stderr
