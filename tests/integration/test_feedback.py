"""Feedback on the real stack: a worker killed between results and feedback, days apart; the commands as processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from penstock.bus import KafkaBus, Producer
from penstock.bus import Partition as LogPartition
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.provisioning import Topics, plan_topics
from penstock.contracts.records import AnnotationTask, DeadLetter, Evaluation, Label, Record
from penstock.settings import KafkaSettings

from tests.integration.feedback_worker import agent_logic, own_catalogue
from tests.unit.feedback_partition import NOW, TOPICS, Partition, evaluation, feedback, result

PROJECT = Path(__file__).resolve().parents[2]
REQUESTS = 400
FIRST = datetime.now(UTC) - timedelta(hours=75)
"""When the log took in what came first; within the retention of its topics."""
Timed = tuple[datetime, Record]


def before_the_kill() -> list[Timed]:
    """Results and scores of the even requests; of the odd ones scores and feedback that is an hour and more early."""
    timed: list[Timed] = []
    for number in range(REQUESTS):
        toxicity = number / REQUESTS
        scores = [("answer.toxicity", toxicity, "toxic" if toxicity >= 0.5 else "clean")]
        timed.append((FIRST, evaluation(number, scores, part="toxicity")))
        if number % 2:
            timed.append((FIRST, feedback(number, "ada", rating=1.0, labels={"answer.toxicity": "clean"})))
        else:
            timed.append((FIRST, result(number)))
    return timed


def after_the_kill() -> list[Timed]:
    """The results that are missing, hours later; more scores; and feedback three days late, some of it twice."""
    early, late = FIRST + timedelta(hours=2), FIRST + timedelta(hours=72)
    timed: list[Timed] = [(early, result(number)) for number in range(1, REQUESTS, 2)]
    for number in range(REQUESTS):
        timed.append((late, evaluation(number, [("answer.groundedness", 0.7, "grounded")], part="quality")))
        said = feedback(number, "bob", rating=0.25, labels={"answer.toxicity": "toxic"}, source="moderator")
        timed += [(late, said)] * (2 if number % 20 == 0 else 1)
    return timed


@dataclass
class Agent:
    """The worker as a process, and what it has written to topics of this test's own."""

    settings: KafkaSettings
    bus: KafkaBus
    suffix: str
    names: Mapping[str, str]
    codec: Codec
    log: Path
    process: subprocess.Popen[bytes] | None = None
    found: dict[str, Record] = field(default_factory=dict)
    changed: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.feedback_worker", self.settings.kafka_bootstrap, self.suffix],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def send(self, timed: Sequence[Timed]) -> None:
        """Write records as if the log had taken them in at their times."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap)
        await producer.start()
        try:
            sends = []
            for at, record in timed:
                topic = self.names[TOPICS[type(record)]]
                key = f"c{record.request_id[1:]}".encode()
                value = self.codec.encode(topic, record)
                sends.append(await producer.send(topic, value, key=key, timestamp_ms=int(at.timestamp() * 1000)))
            await asyncio.gather(*sends)
        finally:
            await producer.stop()

    async def committed(self) -> int:
        """Return how many messages of its sources the worker is done with."""
        topics = [self.names[topic] for topic in set(TOPICS.values())]
        offsets: Mapping[LogPartition, int] = await self.bus.committed(f"feedback-{self.suffix}", topics)
        return sum(offsets.values())

    async def until(self, done: Callable[[], bool], timeout_s: float = 90.0) -> None:
        """Read outputs until ``done``."""
        reader = await self.bus.read([self.names[name] for name in ("evaluations", "labels", "dlq-evaluation")])
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    assert self.process is not None
                    assert self.process.poll() is None, self.log.read_text()
                    for message in await reader.poll(0.2):
                        record = self.codec.decode(message.topic, message.value)
                        if not record.causation_id.startswith("feedback-"):
                            continue  # what the test wrote itself
                        self.changed += self.found.setdefault(record.event_id, record) != record
        finally:
            await reader.close()

    async def reached(self, messages: int, timeout_s: float = 60.0) -> None:
        """Wait until the worker is done with so many messages."""
        async with asyncio.timeout(timeout_s):
            while await self.committed() < messages:
                assert self.process is not None
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.1)


def uninterrupted() -> dict[str, Record]:
    """Return what the logic makes of the same events without a crash, in the order in which they were sent."""
    partition = Partition(agent_logic())
    for at, record in before_the_kill() + after_the_kill():
        partition.take(record, at)
    assert not partition.sink(DeadLetter)
    return {identity: record for identity, (_, _, record) in partition.sink(Evaluation, Label).items()}


@pytest.mark.timeout(240)
async def test_a_killed_worker_joins_what_an_uninterrupted_one_does(
    kafka_settings: KafkaSettings, bus: KafkaBus, tmp_path: Path
) -> None:
    suffix = uuid.uuid4().hex[:8]
    catalogue, names = own_catalogue(suffix)
    Topics(kafka_settings).apply(plan_topics(list(catalogue.topics.values()), {}))
    agent = Agent(kafka_settings, bus, suffix, names, Codec.offline(catalogue), tmp_path / "worker.log")
    before, after = before_the_kill(), after_the_kill()
    agent.start()
    try:
        await agent.send(before)
        await agent.reached(len(before))
        agent.kill()  # all of the first part is remembered, none of it is joined
        await agent.send(after)
        agent.start()
        await agent.reached(len(before) + len(after) // 4)
        agent.kill()  # in mid-stream
        agent.start()
        expected = uninterrupted()
        await agent.until(lambda: len(agent.found) >= len(expected))
        assert agent.found == expected
        assert agent.changed == 0
        assert len(expected) > 4 * REQUESTS
    finally:
        agent.kill()


COMMANDS = """
import json, sys
from penstock.cli.main import main
for arguments in json.load(sys.stdin):
    main(arguments, prog_name="penstock", standalone_mode=False)
    print(chr(30), flush=True)
"""
"""Runs one command after another in one process: most of the time of a short one goes into its start."""


def commands(environment: Mapping[str, str], *lines: Sequence[str]) -> list[str]:
    """Return what each command prints."""
    run = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps(lines),
        env={**os.environ, **environment, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [printed.strip() for printed in run.stdout.split(chr(30))[:-1]]


async def test_people_say_and_label_and_export_at_the_command_line(
    deployed: Mapping[str, str], bus: KafkaBus, catalogue: Catalogue, tmp_path: Path
) -> None:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    team = f"team-{uuid.uuid4().hex[:8]}"
    base = result()
    context = msgspec.structs.replace(base.context, conversation_id=f"{team}-c")
    told = msgspec.structs.replace(
        base, event_id=new_id(), request_id=f"{team}-r", tenant_id=team, context=context, prompt="How?"
    )
    task = AnnotationTask(
        event_id=new_id(), request_id=told.request_id, tenant_id=team, occurred_at=NOW, causation_id=told.event_id,
        context=context, queue="toxicity", reason="uncertain", priority=0.7, prompt="How?", content=told.content,
        labels=["answer.toxicity"],
    )  # fmt: skip
    producer = Producer(bus.producer(), codec, "tests")
    for topic, record in (("llm-results", told), ("annotation-tasks", task)):
        await (await producer.send(topic, f"{team}-c", record))
    request, out, again = told.request_id, tmp_path / "sft.jsonl", tmp_path / "again.jsonl"
    shown, labelled, said, listed, waiting, exported, _, agreed = await asyncio.to_thread(
        commands, deployed,
        ["annotations", "next", "--team", team, "--as", "ada"],
        ["annotations", "label", request, "--label", "answer.toxicity=clean", "--rating", "0", "--as", "ada"],
        ["feedback", "give", request, "--correction", "Better.", "--as", "bob"],
        ["feedback", "list", "--team", team, "--json"],
        ["annotations", "list", "--team", team],
        ["feedback", "export", "--format", "sft", "--team", team, "--out", str(out)],
        ["feedback", "export", "--like", f"{out}.manifest.json", "--out", str(again)],
        ["annotations", "agreement", "--team", team, "--json"],
    )  # fmt: skip
    assert "question:\nHow?" in shown
    assert "wanted: answer.toxicity=toxic|clean" in shown
    assert labelled.startswith(f"labelled: request {request} of {team}")
    assert said.startswith(f"said: request {request} of {team}")
    rows = [json.loads(line) for line in listed.splitlines()]
    assert [(row["user_id"], row["source"], row["joined"], row["model"]) for row in rows] == [
        ("ada", "moderator", True, "m"), ("bob", "user", True, "m"),
    ]  # fmt: skip
    assert waiting == "nothing waits for annotators"
    assert exported.startswith("1 rows of 2 feedback events")
    assert json.loads(out.read_text("utf-8"))["messages"][-1] == {"role": "assistant", "content": "Better."}
    assert again.read_bytes() == out.read_bytes()
    assert {json.loads(line)["label"] for line in agreed.splitlines()} == {"answer.toxicity", "rating"}
