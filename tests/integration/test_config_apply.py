"""``penstock topics``, ``schemas`` and ``config`` as processes, and the live plane, on real Kafka."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from penstock.bus import KafkaBus, KafkaUnavailable
from penstock.config.plane import TOPICS, ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.provisioning import ProvisioningError, Topics, TopicState, plan_topics
from penstock.settings import KafkaSettings

Cli = Callable[[list[str], Mapping[str, str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(project: Path, tmp_path: Path, penstock_cli: Cli, deployed: Mapping[str, str]) -> Iterator[Path]:
    """A copy of the default configuration to change; the default is applied again afterwards."""
    copy = tmp_path / "config"
    shutil.copytree(project / "infra" / "config", copy)
    yield copy
    assert penstock_cli(["config", "apply"], deployed).returncode == 0


@pytest.fixture
async def plane(bus: KafkaBus, catalogue: Catalogue, kafka_settings: KafkaSettings) -> AsyncIterator[ConfigPlane]:
    plane = await ConfigPlane.open(bus, await Codec.resolve(catalogue, kafka_settings.schema_registry_url))
    stopping = asyncio.Event()
    task = asyncio.create_task(plane.follow(stopping))
    yield plane
    stopping.set()
    await task
    await plane.close()


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_change_of_a_file_reaches_a_running_reader(
    folder: Path, plane: ConfigPlane, penstock_cli: Cli, deployed: Mapping[str, str]
) -> None:
    assert plane.team("support") is not None
    # What other tests have left on the topics is taken back first.
    settled = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder)], deployed)
    assert settled.returncode == 0, settled.stderr
    name = f"team-{uuid.uuid4().hex[:8]}"
    file = folder / "teams" / f"{name}.yaml"
    file.write_text(f"name: {name}\nrequests_per_minute: 7\n")
    first = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder), "--reason", "new team"], deployed)
    assert first.returncode == 0, first.stderr
    assert f"+ teams/{name}" in first.stdout
    assert "1 published" in first.stdout
    await eventually(lambda: plane.team(name) is not None)
    again = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder)], deployed)
    assert "nothing to publish" in again.stdout
    file.write_text(f"name: {name}\nrequests_per_minute: 9\n")
    changed = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder)], deployed)
    assert "requests_per_minute: 7 -> 9" in changed.stdout
    await eventually(lambda: plane.team(name).requests_per_minute == 9)  # type: ignore[union-attr]
    file.unlink()
    withdrawn = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder)], deployed)
    assert f"- teams/{name}" in withdrawn.stdout
    await eventually(lambda: plane.team(name) is None)


async def test_invalid_file_is_refused_with_the_line_and_nothing_is_published(
    folder: Path, bus: KafkaBus, kafka_settings: KafkaSettings, penstock_cli: Cli, deployed: Mapping[str, str]
) -> None:
    before = await ends(bus)
    (folder / "teams" / "good.yaml").write_text("name: good\n")
    (folder / "teams" / "bad.yaml").write_text("name: bad\npolicy: default\nbudgets:\n  - {name: daily, limit: lots}\n")
    run = await asyncio.to_thread(penstock_cli, ["config", "apply", str(folder)], deployed)
    assert run.returncode == 2
    assert f"{folder}/teams/bad.yaml:4: budgets.0.limit: input should be a valid decimal (is 'lots')" in run.stderr
    assert "Most USD in a window" in run.stderr
    assert "Traceback" not in run.stderr
    assert await ends(bus) == before


async def ends(bus: KafkaBus) -> int:
    reader = await bus.read(TOPICS)
    count = 0
    while not await reader.at_end():
        count += len(await reader.poll(1.0))
    await reader.close()
    return count


def test_dry_run_publishes_nothing(folder: Path, penstock_cli: Cli, deployed: Mapping[str, str]) -> None:
    (folder / "teams" / "dry.yaml").write_text("name: dry\n")
    run = penstock_cli(["config", "apply", str(folder), "--dry-run"], deployed)
    assert (run.returncode, "1 to publish" in run.stdout) == (0, True), run.stderr
    shown = penstock_cli(["config", "show", "teams", "dry"], deployed)
    assert shown.returncode == 1
    assert "teams hold no 'dry'; there are acme" in shown.stderr


def test_show_prints_what_the_topics_hold(penstock_cli: Cli, deployed: Mapping[str, str]) -> None:
    listed = penstock_cli(["config", "show", "routes"], deployed)
    assert "default" in listed.stdout
    assert "passthrough" in listed.stdout
    prompt = penstock_cli(["config", "show", "prompts", "grounded-answer"], deployed)
    assert json.loads(prompt.stdout)["name"] == "grounded-answer"


def test_prices_are_shown_as_the_topics_hold_them_with_their_history(
    folder: Path, penstock_cli: Cli, deployed: Mapping[str, str]
) -> None:
    name = f"model-{uuid.uuid4().hex[:8]}"
    file = folder / "prices" / "test.yaml"
    for cost, reason in (("0.000001", "first"), ("0.000002", "dearer")):
        file.write_text(f"model: {name}\ninput_cost_per_token: {cost}\noutput_cost_per_token: 0\n")
        assert penstock_cli(["config", "apply", str(folder), "--reason", reason], deployed).returncode == 0
    shown = penstock_cli(["prices", "show", name, "--json"], deployed)
    assert shown.returncode == 0, shown.stderr
    first, second = json.loads(shown.stdout)
    assert (first["state"], first["reason"], first["price"]["input_cost_per_token"]) == (
        "replaced",
        "first",
        "0.000001",
    )
    assert (second["state"], second["reason"], second["closed_at"]) == ("in force", "dearer", None)
    assert first["closed_at"] == second["published_at"]
    file.unlink()
    assert penstock_cli(["config", "apply", str(folder)], deployed).returncode == 0
    assert [one["state"] for one in json.loads(penstock_cli(["prices", "show", name, "--json"], deployed).stdout)] == [
        "replaced", "withdrawn",
    ]  # fmt: skip
    assert name not in penstock_cli(["prices", "show"], deployed).stdout


def test_models_without_a_price_are_found_on_the_topics(
    folder: Path, penstock_cli: Cli, deployed: Mapping[str, str]
) -> None:
    assert penstock_cli(["prices", "check"], deployed).returncode == 0
    (folder / "routes" / "test.yaml").write_text("name: test\ntargets: [{backend: openai, model: nobody-knows}]\n")
    applied = penstock_cli(["config", "apply", str(folder)], deployed)
    assert applied.returncode == 0, applied.stderr
    assert "'nobody-knows' has no price" in applied.stderr
    assert "requests of research, support are refused as unpriced_model" in applied.stderr
    found = penstock_cli(["prices", "check"], deployed)
    assert found.returncode == 1
    assert (
        "nobody-knows of the route test has no price; refused for research, support, with a hard budget" in found.stdout
    )


def test_deploying_twice_changes_nothing(penstock_cli: Cli, deployed: Mapping[str, str]) -> None:
    for command in ("topics", "schemas"):
        run = penstock_cli([command, "apply"], deployed)
        assert run.returncode == 0, run.stderr
        assert "nothing to do" in run.stdout
        assert "missing" not in penstock_cli([command, "list"], deployed).stdout


def test_schemas_can_be_checked_and_drafted_without_a_cluster(penstock_cli: Cli) -> None:
    nowhere = {"KAFKA_BOOTSTRAP": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1"}
    checked = penstock_cli(["schemas", "check"], nowhere)
    assert checked.returncode == 0, checked.stderr
    assert "all compatible" in checked.stdout
    drafted = penstock_cli(["schemas", "draft", "LlmRequest"], nowhere)
    assert json.loads(drafted.stdout)["name"] == "LlmRequest"
    unknown = penstock_cli(["schemas", "draft", "LlmRequests"], nowhere)
    assert unknown.returncode == 2
    assert "LlmRequest" in unknown.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["topics", "apply", "--wait", "0.5"], "no Kafka broker answers at {kafka}"),
        (["schemas", "apply", "--wait", "0.2"], "the schema registry at {registry} does not answer"),
        (["config", "apply", "--wait", "0.2"], "the schema registry at {registry} does not answer"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_cluster_that_is_away_is_one_clear_line(penstock_cli: Cli, command: list[str], words: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        run = penstock_cli(command, {"KAFKA_BOOTSTRAP": address, "SCHEMA_REGISTRY_URL": f"http://{address}"})
    assert run.returncode == 1
    assert words.format(kafka=address, registry=f"http://{address}") in run.stderr
    assert "Traceback" not in run.stderr


async def test_topic_that_is_missing_is_named_with_the_remedy(bus: KafkaBus) -> None:
    with pytest.raises(KafkaUnavailable, match=r"config-nothing does not exist.*penstock topics apply"):
        await bus.read(["config-nothing"])


def grown_to(cluster: Topics, name: str, partitions: int) -> TopicState:
    """Return the topic once the broker tells of so many partitions: it learns of a change a moment after the controller."""
    give_up = time.monotonic() + 20
    while True:
        state = cluster.existing([name]).get(name)
        if state is not None and state.partitions == partitions:
            return state
        assert time.monotonic() < give_up, state
        time.sleep(0.05)


def test_topics_grow_and_are_configured_but_never_deleted(catalogue: Catalogue, kafka_settings: KafkaSettings) -> None:
    cluster = Topics(kafka_settings)
    name = f"test-{uuid.uuid4().hex}"
    small = replace(catalogue.topics["alerts"], name=name, partitions=2)
    first = plan_topics([small], cluster.existing([name]))
    assert first[0].create
    cluster.apply(first)
    grown_to(cluster, name, 2)
    assert plan_topics([small], cluster.existing([name]))[0].idle
    grown = replace(small, partitions=4, retention_ms=3_600_000)
    [change] = plan_topics([grown], cluster.existing([name]))
    assert (change.create, change.partitions, dict(change.config)) == (False, 4, {"retention.ms": "3600000"})
    assert "keys move" in change.note
    cluster.apply([change])
    assert grown_to(cluster, name, 4).config["retention.ms"] == "3600000"
    [back] = plan_topics([replace(grown, partitions=2)], cluster.existing([name]))
    assert back.idle
    assert "Kafka cannot remove any" in back.note


def test_change_that_the_broker_refuses_names_the_topic(catalogue: Catalogue, kafka_settings: KafkaSettings) -> None:
    topic = replace(catalogue.topics["alerts"], name=f"test-{uuid.uuid4().hex}", config={"max.message.bytes": "many"})
    with pytest.raises(ProvisioningError, match=f"creating {topic.name} .*max.message.bytes"):
        Topics(kafka_settings).apply(plan_topics([topic], {}))


async def test_registry_that_goes_away_after_the_start_stops_nobody(
    stack: Any, catalogue: Catalogue, kafka_settings: KafkaSettings, bus: KafkaBus
) -> None:
    if stack.status().parts[1].state == "given":
        pytest.skip("the registry is given from outside: it is not ours to stop")
    codec = await Codec.resolve(catalogue, kafka_settings.schema_registry_url)
    stack.kill("registry")
    try:
        plane = await ConfigPlane.open(bus, codec)
        assert plane.team("support") is not None
        await plane.close()
    finally:
        await asyncio.to_thread(stack.start, "registry")
    await Codec.resolve(catalogue, kafka_settings.schema_registry_url)
