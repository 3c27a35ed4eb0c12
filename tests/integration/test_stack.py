"""The local stack itself: real Kafka, registry and Redis, started, broken, mended and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from click.testing import CliRunner
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic
from penstock.cli.main import main
from penstock.stack import Stack, StackError, process
from penstock.stack.errors import PartFailed, PortInUse
from penstock.stack.kafka import admin_config, missing_topics
from penstock.stack.stack import PARTS

pytestmark = pytest.mark.stack

GIVEN = {part.variable for part in PARTS} | {"QDRANT_URL"}


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """This process's environment without servers given from outside, which would leave nothing to start."""
    return {name: value for name, value in os.environ.items() if name not in GIVEN}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Iterator[Stack]:
    """A stack for the tests of this file alone, since they break it."""
    made = Stack.open("broken", tmp_path_factory.mktemp("stacks"), environ=environ)
    made.up()
    yield made
    made.down(purge=True)


@pytest.fixture
def another(tmp_path: Path, environ: dict[str, str]) -> Iterator[Stack]:
    """A second stack; nothing of it runs yet."""
    made = Stack.open("another", tmp_path, environ=environ)
    yield made
    made.down(purge=True)


@pytest.fixture
def topic(stack: Stack) -> str:
    name = f"t-{uuid.uuid4()}"
    admin = AdminClient(admin_config(stack.environment()["KAFKA_BOOTSTRAP"], {}))
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    return name


def produce(stack: Stack, topic: str, value: bytes) -> None:
    errors: list[object] = []
    producer = Producer(
        {
            "bootstrap.servers": stack.environment()["KAFKA_BOOTSTRAP"],
            "message.max.bytes": 20_000_000,
            "acks": "all",
            "topic.metadata.propagation.max.ms": 500,  # how long a topic that is not there is hoped for
        }
    )
    producer.produce(topic, value, partition=0, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    if errors[0] is not None:
        raise KafkaException(errors[0])


def first_message(stack: Stack, topic: str) -> bytes:
    consumer = Consumer(
        {
            "bootstrap.servers": stack.environment()["KAFKA_BOOTSTRAP"],
            "group.id": str(uuid.uuid4()),
            "fetch.message.max.bytes": 20_000_000,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                return message.value()
    finally:
        consumer.close()
    raise AssertionError(f"no message in {topic}")


def register(stack: Stack, subject: str, schema: str) -> int:
    url = f"{stack.environment()['SCHEMA_REGISTRY_URL']}/subjects/{subject}/versions"
    answer = httpx.post(url, json={"schema": schema}, timeout=30)
    answer.raise_for_status()
    return int(answer.json()["id"])


def pids(stack: Stack) -> dict[str, int | None]:
    return {part.name: part.pid for part in stack.status().parts if part.name != "qdrant"}


def test_all_parts_answer_and_their_memory_is_small(stack: Stack) -> None:
    status = stack.status()
    assert status.up
    states = {part.name: part.state for part in status.parts}
    assert states == {"kafka": "running", "registry": "running", "redis": "running", "qdrant": "embedded"}
    assert sum(part.resident_bytes or 0 for part in status.parts) < 900_000_000


def test_nothing_is_reachable_from_outside(stack: Stack) -> None:
    found = set()
    for pid in pids(stack).values():
        for one in psutil.Process(pid).net_connections("inet"):
            if one.status == psutil.CONN_LISTEN:
                found.add(one.laddr.ip.removeprefix("::ffff:"))
    assert found == {"127.0.0.1"}


def test_kafka_takes_messages_up_to_eight_mebibytes_and_makes_no_topics_by_itself(stack: Stack, topic: str) -> None:
    value = os.urandom(8 * 1024 * 1024 - 1024)
    produce(stack, topic, value)
    assert first_message(stack, topic) == value
    with pytest.raises(KafkaException, match="MSG_SIZE_TOO_LARGE"):
        produce(stack, topic, os.urandom(9 * 1024 * 1024))
    with pytest.raises(KafkaException, match=r"UNKNOWN_TOPIC|_UNKNOWN_PARTITION"):
        produce(stack, "misspelt", b"x")
    bootstrap = stack.environment()["KAFKA_BOOTSTRAP"]
    assert missing_topics(bootstrap, {}, [topic, "misspelt"], 10) == ["misspelt"]


def test_kafka_is_set_up_for_low_latency_and_for_one_node(stack: Stack) -> None:
    admin = AdminClient(admin_config(stack.environment()["KAFKA_BOOTSTRAP"], {}))
    (future,) = admin.describe_configs([ConfigResource(ResourceType.BROKER, "1")]).values()
    found = {name: entry.value for name, entry in future.result(30).items()}
    assert found["group.initial.rebalance.delay.ms"] == "0"
    assert found["auto.create.topics.enable"] == "false"
    assert found["offsets.topic.replication.factor"] == "1"


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = pids(stack)
    assert stack.up().up
    assert pids(stack) == before


def test_kafka_comes_back_after_a_sigkill_where_it_was_with_what_it_had(stack: Stack, topic: str) -> None:
    produce(stack, topic, b"before the crash")
    before, addresses = pids(stack), stack.environment()
    stack.kill("kafka")
    crashed = {part.name: part for part in stack.status().parts}["kafka"]
    assert crashed.state == "crashed"
    assert "stack up" in str(crashed.detail)
    assert stack.environment() == addresses
    stack.up()
    assert first_message(stack, topic) == b"before the crash"
    assert stack.environment() == addresses
    after = pids(stack)
    assert after.pop("kafka") != before.pop("kafka")
    assert after == before


def test_schema_ids_outlive_a_sigkill_of_the_registry(stack: Stack) -> None:
    first = register(stack, "a-value", '{"type": "record", "name": "A", "fields": []}')
    second = register(stack, "b-value", '{"type": "record", "name": "B", "fields": []}')
    assert first != second
    stack.kill("registry")
    stack.start("registry")
    found = httpx.get(f"{stack.environment()['SCHEMA_REGISTRY_URL']}/schemas/ids/{second}", timeout=30)
    assert json.loads(found.json()["schema"])["name"] == "B"


def test_what_redis_holds_outlives_a_sigkill(stack: Stack) -> None:
    with redis.Redis.from_url(stack.environment()["REDIS_URL"]) as client:
        client.set("reservation", "12.5")
    stack.kill("redis")
    stack.start("redis")
    with redis.Redis.from_url(stack.environment()["REDIS_URL"]) as client:
        assert client.get("reservation") == b"12.5"


def test_a_second_stack_runs_beside_the_first(stack: Stack, another: Stack) -> None:
    another.start("redis")
    assert another.known_addresses()["REDIS_URL"] != stack.environment()["REDIS_URL"]
    another.down()
    assert stack.status().up


def test_a_fixed_port_in_use_is_refused_with_owner_and_remedy(
    stack: Stack, another: Stack, environ: dict[str, str]
) -> None:
    port = int(stack.environment()["REDIS_URL"].rpartition(":")[2].removesuffix("/0"))
    fixed = Stack.open("another", another.folder.root.parent, environ=environ, ports={"redis": port})
    with pytest.raises(PortInUse, match=rf"Redis: port {port} .*pid {pids(stack)['redis']}\); .*--redis-port"):
        fixed.start("redis")
    assert another.status().parts[2].state == "stopped"


def test_a_fixed_port_of_a_part_that_runs_elsewhere_is_not_ignored(stack: Stack, environ: dict[str, str]) -> None:
    moved = Stack.open("broken", stack.folder.root.parent, environ=environ, ports={"redis": 1})
    with pytest.raises(StackError, match=r"already runs, on port .* and not 1; `penstock stack down` first"):
        moved.up()
    assert stack.status().up


def test_given_servers_are_used_and_not_started(stack: Stack, tmp_path: Path, environ: dict[str, str]) -> None:
    given = {**environ, **stack.environment()}
    user = Stack.open("user", tmp_path, environ=given)
    status = user.up()
    assert status.up
    assert {part.name: part.state for part in status.parts if part.name != "qdrant"} == dict.fromkeys(
        ["kafka", "registry", "redis"], "given"
    )
    assert {**user.environment(), "QDRANT_PATH": ""} == {**stack.environment(), "QDRANT_PATH": ""}
    user.down(purge=True)
    assert stack.status().up


def test_a_given_server_that_is_away_is_named_with_the_remedy(tmp_path: Path, environ: dict[str, str]) -> None:
    away = Stack.open("user", tmp_path, environ={**environ, "REDIS_URL": "redis://127.0.0.1:1/0"})
    with pytest.raises(StackError, match=r"Redis is given in REDIS_URL but does not answer.*unset the variable"):
        away.up()
    assert away.status().parts[2].state == "unreachable"


def test_a_part_that_fails_shows_its_log_and_stops_what_came_up(
    stack: Stack, tmp_path: Path, environ: dict[str, str]
) -> None:
    registry = {"SCHEMA_REGISTRY_URL": stack.environment()["SCHEMA_REGISTRY_URL"]}
    failing = Stack.open("failing", tmp_path, environ={**environ, **registry})
    log = failing.folder.data / "kafka" / "log"
    log.mkdir(parents=True)
    (log / "meta.properties").write_text("version=1\ncluster.id=broken\n")  # of another node: Kafka refuses it
    with pytest.raises(PartFailed, match="kafka: its process ended before it answered") as failure:
        failing.up()
    assert "meta.properties" in failure.value.log_tail
    assert pids(failing) == {"kafka": None, "registry": None, "redis": None}
    shown = CliRunner().invoke(
        main, ["stack", "up", "--name", "failing", "--state-dir", str(tmp_path)], env={**environ, **registry}
    )
    assert shown.exit_code == 1
    assert "meta.properties" in shown.output
    assert str(failing.folder.log("kafka")) in shown.output


def test_a_process_that_has_the_pid_of_a_part_by_now_is_left_alone(another: Stack) -> None:
    another.start("redis")
    records = another.folder.read()
    record = records["redis"]
    assert record.process is not None
    another.folder.write({**records, "redis": replace(record, process=replace(record.process, birth="earlier/1"))})
    another.down()
    assert record.process.alive
    assert process.stop(record.process, term_s=20)


def test_status_and_env_say_where_things_are(stack: Stack, environ: dict[str, str]) -> None:
    options = ["--name", "broken", "--state-dir", str(stack.folder.root.parent)]
    shown = CliRunner().invoke(main, ["stack", "status", *options, "--json"], env=environ)
    assert shown.exit_code == 0
    found = json.loads(shown.output)
    assert found["up"] is True
    assert found["parts"]["kafka"]["KAFKA_BOOTSTRAP"] == stack.environment()["KAFKA_BOOTSTRAP"]
    exports = CliRunner().invoke(main, ["stack", "env", *options], env=environ).output
    done = subprocess.run(["sh", "-c", f"{exports}\necho $REDIS_URL"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == stack.environment()["REDIS_URL"]


def test_run_says_what_to_type_when_topics_are_missing(stack: Stack, environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from penstock.cli.main import main; main()", "run", "intake", "--name", "broken"],
        env={**environ, "PENSTOCK_STATE_DIR": str(stack.folder.root.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "topics are missing" in done.stderr
    assert "`penstock topics apply`" in done.stderr


def test_down_ends_every_process_and_keeps_the_data(tmp_path: Path, environ: dict[str, str]) -> None:
    made = Stack.open("brief", tmp_path, environ=environ)
    made.start("redis")
    with redis.Redis.from_url(made.known_addresses()["REDIS_URL"]) as client:
        client.set("kept", "yes")
    pid = pids(made)["redis"]
    made.down()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    made.start("redis")
    with redis.Redis.from_url(made.known_addresses()["REDIS_URL"]) as client:
        assert client.get("kept") == b"yes"
    made.down(purge=True)
    assert not made.folder.root.exists()
