"""``penstock drift`` on a real stack: the log replayed gives what the service gave; list, report, pin and rebase."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.bus import KafkaBus, Producer, history
from penstock.clock import SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import DriftCommand, DriftEvent, Signal

from services.drift.commands import decode
from services.drift.projection import family_of

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
BEFORE, AFTER = 260, 140
CENTRES = np.random.default_rng(5).standard_normal((2, 48))

Cli = Callable[..., subprocess.CompletedProcess[str]]


def a_signal(segment: str, number: int, *, changes: bool) -> Signal:
    """Return the ``number``-th event of a segment; after ``BEFORE`` a score falls, and the topic is another."""
    rng = np.random.default_rng([number, len(segment)])
    changed = changes and number >= BEFORE
    vector = CENTRES[int(changed)] + rng.standard_normal(48)
    return Signal(
        event_id=f"{segment}/{number}",
        request_id=f"{segment.partition('|')[0]}-r{number}",
        tenant_id=segment.partition("|")[0],
        occurred_at=NOW + timedelta(seconds=number),
        causation_id="tests",
        segment=segment,
        source="completions",
        source_partition=0,
        source_offset=number,
        values={"retrieval.score": 0.7 - 0.3 * changed + 0.1 * float(rng.standard_normal()), "model.error": 0.0},
        categories={"answer.finish_reason": "length" if rng.random() < 0.1 else "stop"},
        vectors={"prompt.topic": vector.astype("<f4").tobytes()},
        versions={"model": "m2" if changed else "m1"},
    )


class _Log:
    """The log with signals of a team, worked off by the service."""

    def __init__(self, team: str, told: list[DriftEvent]) -> None:
        self.team = team
        self.moved, self.quiet = f"{team}|m|v1|chat", f"{team}|m|v1|mail"
        self.told = told


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


async def worked_off(environment: Mapping[str, str], bus: KafkaBus, codec: Codec, log: Path) -> _Log:
    """Write signals of two segments, run the service until it has committed them all, and read what it told."""
    team = f"drift-cli-{uuid.uuid4().hex[:8]}"
    wanted = _Log(team, [])
    producer = Producer(bus.producer(), codec, "tests", SystemClock())
    acks = []
    for number in range(BEFORE + AFTER):
        for segment, changes in ((wanted.moved, True), (wanted.quiet, False)):
            record = a_signal(segment, number, changes=changes)
            acks.append(await producer.send("signals", family_of(segment), record))
    ends: dict[tuple[str, int], int] = {}
    for ack in acks:
        sent = await ack
        ends[sent.topic, sent.partition] = max(ends.get((sent.topic, sent.partition), 0), sent.offset + 1)
    run = {
        **os.environ,
        **environment,
        "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
        "SESSION_TIMEOUT_MS": "6000",
        "DRIFT_CHECKPOINT_S": "0.2",
        "DRIFT_ANSWER_SHARE": "0",
    }
    with log.open("wb") as output:
        service = subprocess.Popen(
            [sys.executable, "-m", "services.drift"], cwd=PROJECT, env=run, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(150):
            while True:
                assert service.poll() is None, _tail(log)
                committed = {
                    (at.topic, at.partition): end for at, end in (await bus.committed("drift", ["signals"])).items()
                }
                if all(committed.get(place, 0) >= end for place, end in ends.items()):
                    break
                await asyncio.sleep(0.2)
    finally:
        service.terminate()
        assert await asyncio.to_thread(service.wait, 60) == 0, _tail(log)
    wanted.told.extend(await drift_events(bus, codec, team))
    return wanted


async def drift_events(bus: KafkaBus, codec: Codec, team: str) -> list[DriftEvent]:
    """Return a team's drift events, each once."""
    found: dict[str, DriftEvent] = {}
    async with history(bus, ["drift-events"]) as messages:
        async for message in messages:
            record = codec.decode(message.topic, message.value)
            if isinstance(record, DriftEvent) and record.tenant_id == team:
                found[record.event_id] = record
    return list(found.values())


def lines(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.timeout(420)
async def test_the_log_replayed_lists_reports_and_commands(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, penstock_cli: Cli, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"], timeout_s=30)
    begun = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    log = await worked_off(deployed, bus, codec, tmp_path / "service.log")
    assert {(event.segment, event.signal) for event in log.told} == {
        (log.moved, "retrieval.score"), (log.moved, "prompt.topic"),
    }, [(event.segment, event.signal) for event in log.told]  # fmt: skip

    async def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(penstock_cli, ["drift", *arguments], deployed)

    # Replayed from the beginning, the log gives the very events, whatever other segments stand in it.
    replayed = [
        one for one in lines(await cli("replay", "--from", "2020-01-01")) if one["segment"].startswith(log.team)
    ]
    told = {event.event_id: event for event in log.told}
    assert {one["event_id"] for one in replayed} == set(told)
    for one in replayed:
        event = told[one["event_id"]]
        assert (one["signal"], one["kind"], one["what"], one["drift"]) == (
            event.signal,
            event.pattern,
            event.what,
            event.kind,
        )
        assert (one["statistic"], one["threshold"], one["size"]) == (event.statistic, event.threshold, event.size)
        assert (one["before"], one["after"]) == (event.before, event.after)
        assert one["evidence"]["test"][0]["last_offset"] == event.test[0].last_offset == one["place"]["offset"]
        assert one["evidence"]["sample_after"] == event.sample_after

    # Any other detector, over what was written here, with the instant at which the change is known to have begun.
    began = (NOW + timedelta(seconds=BEFORE)).isoformat()
    *adwin, figures = lines(
        await cli(
            "replay", "--from", begun, "--segment", log.moved, "--signal", "retrieval.score", "--detector",
            "adwin:clock=1", "--changes", began, "--summary",
        )
    )  # fmt: skip
    score = figures["summary"]["adwin"]
    assert (score["values"], score["detected"], score["missed"]) == (BEFORE + AFTER, 1, 0)
    assert score["known_changes"][0]["detected"] == adwin[-1]["index"]
    assert adwin[-1]["evidence"]["test"]["topic"] == "signals"

    listed = lines(await cli("list", "--team", log.team, "--json", "--since", "1d"))
    assert {(one["segment"], one["signal"], one["state"]) for one in listed} == {
        (log.moved, "retrieval.score", "changed"), (log.moved, "prompt.topic", "changed"),
    }  # fmt: skip
    table = await cli("list", "--team", log.team)
    assert table.returncode == 0
    assert "retrieval.score" in table.stdout

    page = tmp_path / "report.html"
    drawn = await cli("report", "--team", log.team, "--from", "1d", "-o", str(page))
    assert drawn.returncode == 0, drawn.stderr
    text = page.read_text(encoding="utf-8")
    assert f"penstock audit show {log.told[0].sample_after[0]}" in text
    assert all(segment in text for segment in (log.moved, log.quiet))

    await commands(cli, bus, codec, log)


async def commands(cli: Callable[..., Any], bus: KafkaBus, codec: Codec, log: _Log) -> None:
    """Pin and rebase, and read the commands as the service does."""
    now = datetime.now(UTC)
    period = ["--from", (now - timedelta(hours=1)).isoformat(), "--to", (now + timedelta(hours=1)).isoformat()]
    nothing = await cli("pin", f"{log.team}-other|*|*|chat", *period)
    assert nothing.returncode == 1
    assert "no signals of" in nothing.stderr
    wrong = await cli("pin", "chat", *period)
    assert wrong.returncode == 2
    assert "'chat' is no segment: write 'team|model|prompt version|route'" in wrong.stderr
    unknown = await cli("pin", log.quiet, *period, "--signal", "no.such")
    assert unknown.returncode == 1
    assert "has no signal no.such" in unknown.stderr
    turned = await cli("pin", log.quiet, "--from", period[3], "--to", period[1])
    assert turned.returncode == 2
    assert "--to must be later than --from" in turned.stderr
    async with history(bus, ["signals"]) as messages:
        mine = [
            message.timestamp_ms
            async for message in messages
            if (record := codec.decode(message.topic, message.value)).tenant_id == log.team
            and record.segment == log.quiet  # type: ignore[attr-defined]
        ]
    few = datetime.fromtimestamp((sorted(mine)[0] - 1) / 1000, UTC), datetime.fromtimestamp(sorted(mine)[9] / 1000, UTC)
    short = await cli("pin", log.quiet, "--from", few[0].isoformat(), "--to", few[1].isoformat())
    assert short.returncode == 1
    assert "too few" in short.stderr or "no signals" in short.stderr, short.stderr

    (pinned,) = lines(
        await cli("pin", log.quiet, *period, "--reason", "the week of the launch", "--author", "ana", "--json")
    )
    assert (pinned["action"], pinned["segment"], pinned["author"]) == ("pin", log.quiet, "ana")
    (rebased,) = lines(await cli("rebase", f"{log.team}|*|*|chat", "--signal", "retrieval.score", "--json"))
    (unpinned,) = lines(await cli("unpin", log.quiet, "--json"))
    sent: dict[str, tuple[bytes | None, DriftCommand]] = {}
    async with history(bus, ["drift-commands"]) as messages:
        async for message in messages:
            record = codec.decode(message.topic, message.value)
            if isinstance(record, DriftCommand):
                sent[record.event_id] = message.key, record
    key, command = sent[pinned["event_id"]]
    assert key == f"{log.team}|mail".encode()
    assert command.reference is not None
    assert set(decode(command.reference)) >= {"retrieval.score", "prompt.topic", "answer.finish_reason"}
    assert command.since == datetime.fromisoformat(period[1])
    key, command = sent[rebased["event_id"]]
    assert (key, command.action, command.signal) == (f"{log.team}|chat".encode(), "rebase", "retrieval.score")
    assert sent[unpinned["event_id"]][1].action == "unpin"
