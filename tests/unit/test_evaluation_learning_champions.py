"""Champions as the scoring sees them: by the instant of a result, from a log that may hold anything."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.bus import MemoryBus, Producer
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import ModelWeights

from services.evaluation.learning.champions import Champions, ChampionsError
from services.evaluation.learning.publishing import version_of
from services.evaluation.toxicity.features import unpack
from services.evaluation.toxicity.model import ToxicityModel
from services.evaluation.toxicity.weights import Weights, pack_weights
from tests.unit.learning_labels import CLEAN, EAGER, SLANG, START, Run, command, features, honest, learner

LATER = START + timedelta(days=1)


@pytest.fixture(scope="module")
def learned() -> Run:
    """A run with two champions and a roll-back to the first."""
    run = Run(EAGER).take(honest(90))
    assert run.alerts("model_promoted")
    return run.take([*honest(6, first=90), command(100, "promote"), command(120, "rollback")])


def following(run: Run) -> Champions:
    champions = Champions([learner()])
    for emit in run.emits:
        if emit.topic == "config-models":
            assert isinstance(emit.record, ModelWeights)
            champions.apply(emit.record)
    return champions


def newest(run: Run, version: str | None = None) -> ModelWeights:
    record = run.models(f"toxicity@{version or run.state.schedule[1].version}")[0]
    assert isinstance(record, ModelWeights)
    return record


def test_the_shipped_weights_are_in_force_where_nothing_was_published() -> None:
    version, weights = Champions([learner()]).at("toxicity", LATER)
    assert (version, weights) == (learner().version, learner().shipped())
    with pytest.raises(KeyError):
        Champions([learner()]).at("sarcasm", LATER)


def test_a_result_is_scored_with_what_was_in_force_when_it_occurred(learned: Run) -> None:
    champions = following(learned)
    schedule = champions.schedule("toxicity")
    assert [change.cause for change in schedule] == ["shipped", "promoted", "commanded", "rolled back"]
    for change, before in zip(schedule[1:], schedule, strict=False):
        assert champions.at("toxicity", change.effective_from)[0] == change.version
        assert champions.at("toxicity", change.effective_from - timedelta(microseconds=1))[0] == before.version
    assert champions.at("toxicity", LATER)[0] == schedule[1].version
    assert champions.at("toxicity", START - timedelta(days=9))[0] == learner().version


def test_an_earlier_instant_is_answered_alike_after_later_promotions(learned: Run) -> None:
    champions, answers = Champions([learner()]), []
    instant = learned.state.schedule[1].effective_from
    for emit in learned.emits:
        if emit.topic == "config-models":
            assert isinstance(emit.record, ModelWeights)
            champions.apply(emit.record)
            version, weights = champions.at("toxicity", instant)
            answers.append((version, learner().score(features(SLANG[0]), weights)))
    first = next(place for place, answer in enumerate(answers) if answer[0] != learner().version)
    assert len(set(answers[first:])) == 1


def test_the_champion_in_force_scores_as_the_agent_does(learned: Run) -> None:
    version, weights = following(learned).at("toxicity", LATER)
    packed = learned.states[f"toxicity@{version}"].weights
    assert learner().pack(weights) == packed


def test_a_challenger_is_tested_by_the_scores_that_it_would_give(learned: Run) -> None:
    _, weights = following(learned).at("toxicity", LATER)
    model = ToxicityModel.load()
    for text in (*CLEAN, *SLANG):
        for each in (weights, learner().shipped()):
            served = model.score(unpack(features(text)), each).score
            assert learner().score(features(text), each) == pytest.approx(served, abs=1e-5)


class Withdrawing(datetime):
    """An instant while which is looked up the version in force then is withdrawn: look-ups are made in another thread."""

    champions: Champions
    withdrawn: ModelWeights

    def __lt__(self, other: Any) -> bool:
        self.champions.apply(self.withdrawn)
        return super().__lt__(other)


def test_a_version_that_is_withdrawn_while_it_is_looked_up_is_found(learned: Run) -> None:
    champions = following(learned)
    version, weights = champions.at("toxicity", LATER)
    instant = Withdrawing.fromisoformat(LATER.isoformat())
    instant.champions = champions
    instant.withdrawn = damaged(newest(learned, version), format="withdrawn", shape=[], weights=b"", metadata={})
    assert champions.at("toxicity", instant) == (version, weights)
    assert version not in champions.versions("toxicity")
    assert champions.at("toxicity", LATER)[0] != version


def damaged(record: ModelWeights, **fields: Any) -> ModelWeights:
    return msgspec.structs.replace(record, **fields)


def crafted(record: ModelWeights, packed: bytes, shape: list[int] | None = None) -> ModelWeights:
    """A record whose hashes all fit, whatever its weights are."""
    version = version_of(learner().version, 7, packed)
    return damaged(
        record, name=f"toxicity@{version}", version=version, weights=packed, shape=shape or record.shape,
        metadata={**record.metadata, "sha256": sha256(packed).hexdigest()},
    )  # fmt: skip


def of(slots: list[int], deltas: list[float], **fields: Any) -> bytes:
    made = Weights(learner().version, np.array(slots, "<u4").tobytes(), np.array(deltas, "<f4").tobytes(), updates=1)
    return pack_weights(msgspec.structs.replace(made, **fields))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda r: damaged(r, weights=r.weights[:-1]), "sha256"),
        (lambda r: damaged(r, weights=r.weights[:-1] + b"\x00"), "sha256"),
        (lambda r: damaged(r, format="float32-le"), "format is 'float32-le'"),
        (lambda r: damaged(r, shape=[1, 2, 3]), "say shape"),
        (lambda r: damaged(r, version="2"), "its key names"),
        (lambda r: damaged(r, metadata={**r.metadata, "shipped": "another"}), "shipped is 'another'"),
        (lambda r: damaged(r, metadata={**r.metadata, "features_version": "0"}), "features_version"),
        (lambda r: damaged(r, metadata={}), "sha256 is ''"),
        (lambda r: crafted(r, b"\x80\x04\x95pickle"), "not packed toxicity weights"),
        (lambda r: crafted(r, of([3, 5], [1.0, float("nan")])), "not finite"),
        (lambda r: crafted(r, of([5, 3], [1.0, 1.0])), "do not fit together"),
        (lambda r: crafted(r, of([5, 2**31], [1.0, 1.0])), "do not fit together"),
        (lambda r: crafted(r, of([5], [1.0], bias=float("inf"))), "not finite"),
        (lambda r: crafted(r, of([5], [1.0], base="another")), "differences to another"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_and_what_was_good_stays(learned: Run, wrong: Any, match: str) -> None:
    champions = following(learned)
    before = {instant: champions.at("toxicity", instant) for instant in (START, LATER)}
    with pytest.raises(ValueError, match=match):
        champions.apply(wrong(newest(learned)))
    assert {instant: champions.at("toxicity", instant) for instant in before} == before


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"schedule": "[]"}, "empty"),
        ({"schedule": "[[1]]"}, None),
        ({"schedule": "no json"}, None),
        ({"layout": "9"}, "layout"),
        ({"shipped": "another"}, "builds on another"),
        (
            {"schedule": '[["2026-01-02T00:00:00Z","a","promoted"],["2026-01-01T00:00:00Z","b","promoted"]]'},
            "order of time",
        ),
        ({"schedule": '[["2026-01-02T00:00:00","a","promoted"]]'}, "without a zone"),
    ],
)
def test_a_broken_schedule_is_refused_and_what_was_good_stays(
    learned: Run, metadata: dict[str, str], match: str | None
) -> None:
    champions = following(learned)
    record = learned.models("toxicity")[-1]
    with pytest.raises(ValueError, match=match):
        champions.apply(damaged(record, metadata={**record.metadata, **metadata}))
    assert champions.at("toxicity", LATER)[0] == learned.state.version


def test_a_change_to_weights_that_never_came_leaves_the_champion_before_in_force(learned: Run) -> None:
    champions = Champions([learner()])
    first = learned.state.schedule[1].version
    for emit in learned.emits:
        if emit.topic == "config-models" and emit.key != f"toxicity@{first}":
            assert isinstance(emit.record, ModelWeights)
            champions.apply(emit.record)
    second = learned.state.schedule[2]
    assert champions.at("toxicity", second.effective_from - timedelta(microseconds=1))[0] == learner().version
    assert champions.at("toxicity", LATER)[0] == second.version
    champions.apply(newest(learned))
    assert champions.at("toxicity", LATER)[0] == first


async def test_champions_are_read_from_the_log_and_followed(learned: Run) -> None:
    bus = MemoryBus(Catalogue.load(), ManualClock())
    producer = Producer(bus.producer(), bus.codec, "evaluation")
    records = [emit for emit in learned.emits if emit.topic == "config-models"]
    until = next(place for place, emit in enumerate(records) if emit.key == "toxicity") + 1
    for emit in records[:until]:
        await producer.send(emit.topic, emit.key, emit.record)
    await bus.append("config-models", b"toxicity", b"\x00garbage")
    broken = damaged(newest(learned), weights=b"")
    await producer.send("config-models", broken.name, broken)
    champions = await Champions.open(bus, bus.codec, [learner()])
    assert champions.at("toxicity", LATER)[0] == learned.state.schedule[1].version
    following_on = asyncio.create_task(champions.follow())
    for emit in records[until:]:
        await producer.send(emit.topic, emit.key, emit.record)
    async with asyncio.timeout(10):
        while len(champions.schedule("toxicity")) < 4:
            await asyncio.sleep(0.01)
    following_on.cancel()
    await champions.close()
    assert champions.frozen("toxicity") is False
    assert (champions.challenger("toxicity") or {})["labels"] == learned.state.taken


async def test_champions_that_came_from_no_log_cannot_follow_one() -> None:
    with pytest.raises(ChampionsError, match="nothing to follow"):
        await Champions([learner()]).follow()
