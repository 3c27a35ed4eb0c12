"""On real Kafka and Redis: sealed pseudonyms, held texts decided from the command line, and the auditor's proof."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from penstock.bus import Emit, KafkaBus, Producer, Transient
from penstock.config.kinds import Policy
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.records import (
    Completion,
    ConfigEntry,
    Context,
    LlmResult,
    Message,
    ResultChunk,
    Review,
    ReviewDecision,
)
from penstock.sealing import Seal, Unsealable
from redis.asyncio import Redis

from services.guardrails.held_texts import RedisReviews, RedisVault
from services.guardrails.reviews import Held

Cli = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE_S = 60.0


def sealed_by(secret: bytes) -> Seal:
    return Seal(secret, "guardrails", "GUARDRAILS_FINGERPRINT_KEY")


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = Redis.from_url(deployed["REDIS_URL"])
    yield client
    await client.aclose()


@pytest.fixture
async def codec(catalogue: Catalogue, deployed: Mapping[str, str]) -> Codec:
    return await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])


async def test_pseudonyms_are_sealed_and_expire(redis: Redis) -> None:
    team = uuid.uuid4().hex
    vault = RedisVault(redis, sealed_by(b"secret"), ttl_s=600)
    await vault.put(team, "r", {"<PERSON_1>": "Zoë Müller"})
    assert await vault.open(team, "r") == {"<PERSON_1>": "Zoë Müller"}
    assert await vault.open(team, "another") == {}
    [key] = [key async for key in redis.scan_iter(f"penstock:{{{team}}}:*")]
    assert 0 < await redis.ttl(key) <= 600
    assert "Zoë".encode() not in await redis.get(key)
    with pytest.raises(Unsealable, match="GUARDRAILS_FINGERPRINT_KEY"):
        await RedisVault(redis, sealed_by(b"another"), ttl_s=600).open(team, "r")
    # What was sealed for one request does not open as another's.
    await redis.set(key.replace(b":r", b":s"), await redis.get(key))
    with pytest.raises(Unsealable):
        await vault.open(team, "s")


async def test_a_store_that_is_away_is_transient() -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0")
    with pytest.raises(Transient, match="REDIS_URL"):
        await RedisVault(nowhere, sealed_by(b"k"), 60).put("t", "r", {})
    await nowhere.aclose()


def held(team: str, due_in_s: float) -> Held:
    now = datetime.now(UTC).replace(microsecond=0)
    envelope: dict[str, Any] = {
        "event_id": new_id(), "request_id": "r", "tenant_id": team, "occurred_at": now, "causation_id": "c",
    }  # fmt: skip
    review = Review(
        **envelope, context=Context(requested_at=now), stage="output", policy_name="p", policy_version="v",
        due_at=now + timedelta(seconds=due_in_s), content="held",
    )  # fmt: skip
    result = LlmResult(**envelope, context=Context(requested_at=now), status="completed", content="held")
    return Held(review, Emit("llm-results", "r", result))


def decision(about: Held) -> ReviewDecision:
    review = about.review
    return ReviewDecision(
        event_id=new_id(), request_id="r", tenant_id=review.tenant_id, occurred_at=review.occurred_at,
        causation_id=review.event_id, review_id=review.event_id, approved=True, reviewer="mara",
    )  # fmt: skip


async def test_the_first_decision_gets_what_is_held_and_gets_it_again(redis: Redis, codec: Codec) -> None:
    reviews = RedisReviews(redis, sealed_by(b"secret"), codec)
    one = held(uuid.uuid4().hex, 600)
    await reviews.hold(one)
    await reviews.hold(one)
    first, second = decision(one), decision(one)
    assert await reviews.take(first) == one
    assert await reviews.take(second) is None
    assert await reviews.take(first) == one
    assert await reviews.take(decision(held("nobody", 600))) is None


async def test_what_is_overdue_is_found_until_it_is_closed(redis: Redis, codec: Codec) -> None:
    reviews = RedisReviews(redis, sealed_by(b"secret"), codec)
    late, early = held(uuid.uuid4().hex, -5), held(uuid.uuid4().hex, 600)
    await reviews.hold(late)
    await reviews.hold(early)
    overdue = await reviews.overdue(datetime.now(UTC))
    assert late in overdue
    assert early not in overdue
    await reviews.close(late.review)
    assert late not in await reviews.overdue(datetime.now(UTC))


async def test_what_has_ended_is_not_held_again_and_not_decided(redis: Redis, codec: Codec) -> None:
    reviews = RedisReviews(redis, sealed_by(b"secret"), codec)
    late = held(uuid.uuid4().hex, -5)
    await reviews.hold(late)
    assert await reviews.end(late.review, "overdue")
    assert await reviews.end(late.review, "overdue")
    assert await reviews.take(decision(late)) is None
    await reviews.close(late.review)
    await reviews.hold(late)
    assert late not in await reviews.overdue(datetime.now(UTC))


async def test_what_was_due_long_ago_still_ends(redis: Redis, codec: Codec) -> None:
    reviews = RedisReviews(redis, sealed_by(b"secret"), codec)
    late = held(uuid.uuid4().hex, -3 * 24 * 3600)
    await reviews.hold(late)
    assert late in await reviews.overdue(datetime.now(UTC))
    await reviews.close(late.review)


async def test_a_held_text_that_cannot_be_read_keeps_no_other_waiting(redis: Redis, codec: Codec) -> None:
    sealed_otherwise, late = held(uuid.uuid4().hex, -9), held(uuid.uuid4().hex, -5)
    await RedisReviews(redis, sealed_by(b"another"), codec).hold(sealed_otherwise)
    reviews = RedisReviews(redis, sealed_by(b"secret"), codec)
    await reviews.hold(late)
    assert late in await reviews.overdue(datetime.now(UTC))
    await reviews.close(late.review)


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


async def publish_policy(producer: Producer, policy: Policy, *, deleted: bool = False) -> None:
    entry = ConfigEntry(
        event_id=new_id(), request_id="", tenant_id="", occurred_at=datetime.now(UTC), causation_id="", kind="policies",
        name=policy.name, version=policy.version, content="" if deleted else policy.canonical, deleted=deleted,
    )  # fmt: skip
    await (await producer.send("config-policies", policy.name, entry))


def completion(request_id: str, policy: str, content: str) -> Completion:
    now = datetime.now(UTC)
    return Completion(
        event_id=new_id(), request_id=request_id, tenant_id="support", occurred_at=now, causation_id="",
        context=Context(requested_at=now, policy_name=policy), messages=[Message(role="user", content="q")], model="m",
        backend="openai", content=content,
    )  # fmt: skip


async def until(check: Callable[[], subprocess.CompletedProcess[str]], found: Callable[[str], bool]) -> str:
    """The output of a command once it says what is waited for."""
    give_up = time.monotonic() + DEADLINE_S
    while True:
        run = await asyncio.to_thread(check)
        if run.returncode == 0 and found(run.stdout):
            return run.stdout
        assert time.monotonic() < give_up, run.stdout + run.stderr
        await asyncio.sleep(0.2)


async def test_held_answers_are_decided_from_the_command_line_and_the_auditor_proves_the_releases(
    guardrails: None, bus: KafkaBus, codec: Codec, deployed: Mapping[str, str], penstock_cli: Cli
) -> None:
    started = datetime.now(UTC)
    name = f"reviewed-{uuid.uuid4().hex[:8]}"
    producer = Producer(bus.producer(), codec, "test")
    rules = {"banned_words": {"action": "review", "words": ["falcon"]}, "pii": {"action": "mask"}}
    policy = Policy.model_validate({"name": name, "output": rules})
    await publish_policy(producer, policy)
    requests = {kind: f"{name}-{kind}" for kind in ("approved", "denied", "plain")}

    def cli(*arguments: str) -> Callable[[], subprocess.CompletedProcess[str]]:
        return lambda: penstock_cli(list(arguments), deployed)

    reader = await bus.read(["llm-results"], from_end=True)
    for kind, request_id in requests.items():
        text = "mail ann@example.org" if kind == "plain" else f"the falcon {kind} lands"
        await (await producer.send("completions", request_id, completion(request_id, name, text)))
    waiting = await until(cli("review", "list", "--json"), lambda out: out.count(f'"{name}') >= 2)
    ids = {one["request_id"]: one["event_id"] for one in map(json.loads, waiting.splitlines())}
    assert requests["plain"] not in ids
    shown = penstock_cli(["review", "show", ids[requests["denied"]][:13]], deployed)
    assert "the falcon denied lands" in shown.stdout, shown.stderr
    approve = ["review", "approve", ids[requests["approved"]], "--reviewer", "mara"]
    deny = ["review", "deny", ids[requests["denied"]], "--reviewer", "mara", "--reason", "birds"]
    for command in (approve, deny):
        run = penstock_cli(command, deployed)
        assert run.returncode == 0, run.stderr
    results: dict[str, LlmResult] = {}
    give_up = time.monotonic() + DEADLINE_S
    while len(results) < len(requests):
        assert time.monotonic() < give_up, f"only {sorted(results)} ended"
        for message in await reader.poll(0.5):
            record = codec.decode(message.topic, message.value)
            assert isinstance(record, LlmResult)
            if record.request_id in requests.values():
                results[record.request_id] = record
    await reader.close()
    assert results[requests["approved"]].content == "the falcon approved lands"
    denied = results[requests["denied"]]
    assert (denied.status, denied.content, denied.reason) == ("blocked", "", "mara did not approve it: birds")
    assert results[requests["plain"]].content == "mail <EMAIL_ADDRESS_1>"
    again = penstock_cli(["review", "approve", ids[requests["denied"]]], deployed)
    assert again.returncode == 1
    assert "no open review" in again.stderr

    told = penstock_cli(["audit", "show", requests["approved"]], deployed)
    assert told.returncode == 0, told.stderr
    for said in ("is held for a person", "mara decides", "result: completed"):
        assert said in told.stdout
    assert "falcon" not in told.stdout
    nothing = penstock_cli(["audit", "show", "no-such-request"], deployed)
    assert nothing.returncode == 1
    assert "nothing about request" in nothing.stderr

    since = ["--since", started.isoformat()]
    proven = penstock_cli(["audit", "verify", "--json", *since], deployed)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert json.loads(proven.stdout)["released"] >= 2

    # An unscreened release of either kind, and one whose text was swapped, are found at their places.
    now, planted = datetime.now(UTC), f"{name}-planted"
    envelope: dict[str, Any] = {
        "request_id": planted, "tenant_id": "support", "occurred_at": now, "causation_id": "nobody judged this",
    }  # fmt: skip
    slipped = LlmResult(
        event_id=new_id(), **envelope, context=Context(requested_at=now), status="completed", content="x"
    )
    piece = ResultChunk(event_id=new_id(), **envelope, context=Context(requested_at=now), sequence=0, content="x")
    released = results[requests["plain"]]
    swapped = msgspec.structs.replace(released, content="mail ann@example.org")
    places = []
    for topic, record in (("llm-results", slipped), ("result-chunks", piece), ("llm-results", swapped)):
        sent = await (await producer.send(topic, record.request_id, record))
        places.append((sent.topic, sent.partition, sent.offset))
    caught = penstock_cli(["audit", "verify", "--json", *since], deployed)
    assert caught.returncode == 1
    faults = {(f["topic"], f["partition"], f["offset"]): f["kind"] for f in json.loads(caught.stdout)["faults"]}
    assert faults == dict(zip(places, ("no_verdict", "no_verdict", "other_text"), strict=True))
    report = penstock_cli(["audit", "verify", *since], deployed)
    assert "NOT PROVEN: 3 faults" in report.stdout
    before = penstock_cli(["audit", "verify", "--json", *since, "--until", now.isoformat()], deployed)
    assert before.returncode == 0, before.stdout
    # Other tests find the configuration as they left it.
    await publish_policy(producer, policy, deleted=True)
