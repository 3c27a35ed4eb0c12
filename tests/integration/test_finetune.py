"""``penstock finetune`` from real topics to real topics: rated conversations, an adapter of the tiny model that learned from
them, its evaluation, its registration, and a twentieth of a route's traffic."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.config.entry import Entry
from penstock.config.kinds import Route, Target
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Context, Feedback, LlmResult, Message, Record
from penstock.settings import KafkaSettings

from tests.integration.tiny_model import tiny_model, vllm_python

PROJECT = Path(__file__).resolve().parents[2]
CONVERSATIONS = 60
_PATIENCE_S = 240
RIGHT, WRONG = "It is open from nine to five.", "Nobody knows."
TRAINING = ["--epochs", "4", "--learning-rate", "0.005", "--batch-size", "8", "--accumulate", "1", "--device", "cpu"]


def asked(number: int) -> str:
    return f"When is shop number {number} open?"


async def put(producer: Producer, team: str) -> None:
    """Write requests two a conversation, of which every fourth was answered badly and rated so."""
    now = datetime.now(UTC)
    written: list[tuple[str, Record]] = []
    for number in range(CONVERSATIONS):
        answer = WRONG if number % 4 == 0 else RIGHT
        conversation = f"{team}-{number // 2}"
        common = {"request_id": f"{team}-r{number}", "tenant_id": team, "occurred_at": now, "causation_id": ""}
        context = Context(requested_at=now, conversation_id=conversation)
        messages = [Message(role="user", content=asked(number))]
        written += [
            ("completions", Completion(event_id=f"{team}-c{number}", context=context, messages=messages, content=answer,
                                       model="tiny", backend="vllm", **common)),
            ("llm-results", LlmResult(event_id=f"{team}-l{number}", context=context, status="completed",
                                      prompt=asked(number), content=answer, model="tiny", **common)),
            ("feedback", Feedback(event_id=f"{team}-f{number}", conversation_id=conversation, user_id="ada",
                                  rating=float(answer == RIGHT), **common)),
        ]  # fmt: skip
    sent = [await producer.send(topic, record.request_id, record) for topic, record in written]
    await asyncio.gather(*sent)


class Command:
    """The command line in the engine's environment."""

    def __init__(self, deployed: Mapping[str, str]) -> None:
        self._running: list[subprocess.Popen[str]] = []
        paths = f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"
        self._environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **deployed}
        self._python = str(vllm_python())

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [self._python, "-W", "ignore", "-m", "penstock.cli", *map(str, arguments)],
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def run(self, *arguments: str | Path, status: int = 0) -> str:
        return self.ended(self.start(*arguments), status)

    def ended(self, process: subprocess.Popen[str], status: int = 0) -> str:
        output, _ = process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == status, output
        return output

    def stop(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def command(deployed: Mapping[str, str]) -> Iterator[Command]:
    made = Command(deployed)
    yield made
    made.stop()


@pytest.fixture
async def codec(catalogue: Catalogue, kafka_settings: KafkaSettings) -> Codec:
    return await Codec.resolve(catalogue, kafka_settings.schema_registry_url)


@pytest.fixture
async def plane(bus: KafkaBus, codec: Codec) -> AsyncIterator[ConfigPlane]:
    """What is published, of which what this test adds is withdrawn at its end: others compare files with topics."""
    before = await ConfigPlane.open(bus, codec)
    await before.close()
    yield before
    after = await ConfigPlane.open(bus, codec)
    await after.close()
    added = [
        Change(kind, key, "withdrawn", entry, None)
        for kind in ("routes", "adapters")
        for key, entry in after.entries(kind).items()
        if key not in before.entries(kind)
    ]
    await publish(bus, codec, *added)


async def publish(bus: KafkaBus, codec: Codec, *changes: Change) -> None:
    clock = SystemClock()
    await publish_changes(changes, Producer(bus.producer(), codec, "config", clock), clock.now(), reason="tests")


def new(entry: Entry) -> Change:
    return Change(entry.KIND, entry.key, "new", None, entry)


@pytest.mark.timeout(2 * _PATIENCE_S)
async def test_feedback_becomes_an_adapter_with_a_twentieth_of_the_traffic(
    bus: KafkaBus, codec: Codec, plane: ConfigPlane, command: Command, tmp_path: Path
) -> None:
    base = tiny_model()
    team = f"finetune-{uuid.uuid4().hex[:8]}"
    route = Route(name=team, targets=(Target(backend="vllm", model="tiny"),))
    await asyncio.gather(
        put(Producer(bus.producer(), codec, "tests", SystemClock()), team), publish(bus, codec, new(route))
    )

    dataset = tmp_path / "dataset"
    platform = ["--main-python", sys.executable]
    command.run("finetune", "export", "--out", dataset, "--team", team, *platform)
    rows = [json.loads(line) for line in (dataset / "conversations.jsonl").read_text().splitlines()]
    table = pq.read_table(dataset / "conversations.parquet")
    assert table.num_rows == len(rows) == CONVERSATIONS
    offsets = json.loads(table.schema.metadata[b"penstock.log"])
    assert {each["topic"] for each in offsets} == {"feedback", "llm-results", "completions"}

    golden = tmp_path / "golden.jsonl"
    cases = [
        {"id": f"g{n}", "question": asked(100 + n), "reference": RIGHT, "sampling": {"max_completion_tokens": 16}}
        for n in range(6)
    ]
    golden.write_text("".join(json.dumps(case) + "\n" for case in cases))
    # The same once more, in a process of its own: equal seeds give equal bytes.
    again = command.start("finetune", "train", "--dataset", dataset, "--base", base, "--out", tmp_path / "b", *TRAINING)
    output = command.run(
        "finetune", "run", "--dataset", dataset, "--base", base, "--base-model", "tiny", "--name", team, "--out", tmp_path,
        "--golden", golden, "--evaluator", "token_f1", "--evaluator", "exact_match", "--route", team, "--author", "ada",
        "--reason", "tests", *TRAINING, *platform,
    )  # fmt: skip
    assert "15 left out: rated below 0.75" in output
    assert f"canary.target.model: {team!r} has no price" in output

    folder = tmp_path / team
    trained = json.loads((folder / "training.json").read_text())
    losses = [each["held_out"] for each in trained["losses"]]
    assert losses[-1] < 0.7 * losses[0]
    command.ended(again)
    assert json.loads((tmp_path / "b" / "training.json").read_text())["adapter_sha256"] == trained["adapter_sha256"]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes()

    present = await ConfigPlane.open(bus, codec)
    await present.close()
    adapter, canary = present.adapter(team), present.route(team).canary  # type: ignore[union-attr]
    assert adapter is not None
    assert (adapter.base_model, adapter.path, adapter.sha256) == ("tiny", str(folder), trained["adapter_sha256"])
    assert adapter.trained_on is not None
    assert adapter.trained_on.sha256 == trained["dataset"]["version"]
    assert (adapter.figures["golden.exact_match"], adapter.figures["base.exact_match"]) == (1.0, 0.0)
    assert canary is not None
    assert (canary.target.backend, canary.target.model, canary.share) == ("vllm", team, 0.05)

    refused = command.run("finetune", "register", tmp_path / "b", "--name", f"{team}-2", status=1)
    assert "was not evaluated" in refused
