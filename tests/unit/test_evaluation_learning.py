"""Labels in, champions out: what promotes a challenger, what takes it back, and what a restart or a replay changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from penstock.contracts.records import Label

from services.evaluation.learning.changes import InvalidCommand
from services.evaluation.learning.core import InvalidLabel
from services.evaluation.learning.publishing import read_schedule, read_weights
from services.evaluation.learning.state import Archived
from tests.unit.learning_labels import CLEAN, EAGER, SLANG, START, Run, command, features, honest, label, learner


def promoted(rules: Any = EAGER) -> tuple[Run, int]:
    """A run up to its first promotion, and how many labels that took."""
    run = Run(rules)
    for number, each in enumerate(honest(400)):
        run.take([each])
        if run.alerts("model_promoted"):
            return run, number + 1
    raise AssertionError("400 honest labels promoted nothing")


def test_honest_labels_of_new_words_promote_a_challenger_that_knows_them() -> None:
    run, labels = promoted()
    assert EAGER.least_labels <= labels < 200
    (alert,) = run.alerts()
    assert (alert.name, alert.severity, alert.tenant_id) == ("model_promoted", "info", "platform")
    assert alert.figures["challenger_brier"] < alert.figures["champion_brier"]
    version = run.state.version
    (weights,) = run.models(f"toxicity@{version}")
    (schedule,) = run.models("toxicity")
    changes = read_schedule(schedule)
    assert [change.version for change in changes] == [learner().version, version]
    assert changes[-1].effective_from == honest(labels)[-1].occurred_at + EAGER.grace
    learned, shipped = read_weights(weights, learner()), learner().shipped()
    for text in SLANG:
        assert learner().score(features(text), learned) > learner().score(features(text), shipped)


def test_weights_stand_on_the_topic_before_anything_names_them() -> None:
    run, _ = promoted()
    keys = [emit.key for emit in run.emits if emit.topic == "config-models"]
    assert keys.index(f"toxicity@{run.state.version}") < keys.index("toxicity")


@pytest.mark.parametrize("form", [msgspec.msgpack, msgspec.json], ids=["msgpack", "json"])
def test_a_state_that_goes_through_bytes_at_every_step_gives_the_same(form: Any) -> None:
    feed = [
        *honest(90),
        *(label(100 + n, SLANG[n % 8], False, source="user", author=f"u{n}") for n in range(10)),
        command(111, "rollback"),
        *honest(20, first=112),
        command(140, "promote"),
    ]
    whole = Run(EAGER).take(feed)
    restarted = Run(EAGER, through=lambda state, kind: form.decode(form.encode(state), type=kind)).take(feed)
    assert whole.alerts("model_promoted")
    assert restarted.emits == whole.emits
    assert msgspec.msgpack.encode(restarted.states) == msgspec.msgpack.encode(whole.states)


def test_a_replay_gives_the_same_events_and_nothing_else() -> None:
    feed = [*honest(90), command(95, "rollback")]
    first, again = Run(EAGER).take(feed), Run(EAGER).take(feed)
    assert {(e.topic, e.record.event_id) for e in first.emits} == {(e.topic, e.record.event_id) for e in again.emits}
    assert first.emits == again.emits


def test_a_frozen_champion_stays_and_the_challenger_learns_on() -> None:
    run = Run(EAGER).take([command(0, "freeze"), *honest(120, first=1)])
    assert run.state.version == learner().version
    assert run.models("toxicity")[-1].metadata["frozen"] == "true"
    with pytest.raises(InvalidCommand, match="unfreeze it first"):
        run.take([command(200, "promote")])
    run.take([command(201, "unfreeze"), *honest(2, first=202)])
    assert run.state.version != learner().version


def test_rollback_leads_to_the_version_before_and_the_challenger_begins_anew() -> None:
    run, labels = promoted()
    first = run.state.version
    run.take([*honest(10, first=labels), command(labels + 20, "promote")])
    second = run.state.version
    run.take([command(labels + 30, "rollback")])
    assert run.state.version == first
    assert run.state.challenger == run.models(f"toxicity@{first}")[0].weights
    # Once more leads further back, not to what was just left.
    run.take([command(labels + 31, "rollback")])
    assert run.state.version == learner().version
    run.take([command(labels + 32, "rollback", second)])
    assert run.state.version == second
    instants = [change.effective_from for change in run.state.schedule]
    assert instants == sorted(set(instants))
    assert len(run.alerts("model_rolled_back")) == 3
    with pytest.raises(InvalidCommand, match="is the champion already"):
        run.take([command(labels + 40, "rollback", second)])
    with pytest.raises(InvalidCommand, match="has no version 'nonsense'"):
        run.take([command(labels + 41, "rollback", "nonsense")])
    with pytest.raises(InvalidCommand, match="there are promote, rollback"):
        run.take([command(labels + 42, "explode")])


def test_a_challenger_that_has_learned_nothing_is_not_promoted() -> None:
    with pytest.raises(InvalidCommand, match="learned nothing"):
        Run(EAGER).take([command(0, "promote")])


def test_reset_forgets_what_the_challenger_learned() -> None:
    run = Run(EAGER).take([*honest(20), command(30, "reset")])
    assert run.state.challenger == learner().pack(learner().shipped())
    assert run.state.spent == {}
    assert run.state.test.better.count == 0


def test_old_versions_are_withdrawn_and_the_state_stays_small() -> None:
    rules = replace(EAGER, kept=2)
    run = Run(rules)
    made = []
    for turn in range(5):
        run.take([*honest(6, first=10 * turn), command(10 * turn + 8, "promote")])
        made.append(run.state.version)
    run.take(honest(1, first=100))
    assert [change.version for change in run.state.schedule] == made[-2:]
    assert {key for key in run.states if "@" in key} == {f"toxicity@{version}" for version in made[-2:]}
    for version in made[:3]:
        assert run.models(f"toxicity@{version}")[-1].format == "withdrawn"
    assert all(isinstance(state, Archived) for key, state in run.states.items() if "@" in key)
    assert max(len(msgspec.msgpack.encode(state)) for state in run.states.values()) < 200_000


def test_a_challenger_that_is_worse_begins_anew_from_the_champion() -> None:
    """Moderators who disagree with themselves: what is learned from one is wrong for the next."""
    insult = "you are a worthless piece of shit"
    rules = replace(EAGER, authors=1)
    run = Run(rules)
    run.take([label(n, insult, False, author=("ada", "alan")[n % 2]) for n in range(12)])
    before = run.state.challenger
    run.take(
        [
            label(100 + n, insult, True, author=("ada", "alan")[n % 2], at=START + timedelta(hours=1 + n))
            for n in range(80)
        ]
    )
    after = learner().unpack(run.state.challenger)
    assert before != run.state.challenger
    assert run.state.version == learner().version
    assert learner().score(features(insult), after) > 0.9


def test_users_labels_teach_less_than_moderators() -> None:
    shipped = Run(EAGER).take([label(0, SLANG[0], True, features_version="none")]).log_odds(SLANG[:1])[0]
    moved = {
        source: Run(EAGER).take([label(0, SLANG[0], True, source=source)]).log_odds(SLANG[:1])[0] - shipped
        for source in ("user", "stranger", "moderator", "system")
    }
    assert moved["user"] > 0
    assert moved["stranger"] == moved["user"]
    assert moved["moderator"] == moved["system"]
    assert moved["moderator"] == pytest.approx(20 * moved["user"], rel=0.05)


def test_one_class_alone_moves_other_texts_less_and_less_and_promotes_nothing() -> None:
    only = [label(n, SLANG[n % 8], True, author=("ada", "alan", "edsger")[n % 3]) for n in range(200)]
    run = Run(EAGER).take(only)
    assert run.state.version == learner().version
    assert learner().score(features(CLEAN[0]), learner().unpack(run.state.challenger)) < 0.5


def test_labels_of_other_features_teach_nothing_and_stop_nothing() -> None:
    run = Run(EAGER).take([label(0, CLEAN[0], True, features_version="0"), label(1, CLEAN[0], False)])
    assert (run.state.refused, run.state.taken) == ({"outdated": 1}, 1)


def test_what_anybody_can_write_into_feedback_is_counted_and_stops_nothing() -> None:
    run = Run(EAGER).take([
        label(0, CLEAN[0], True, label="perhaps", source="user"),
        label(1, CLEAN[0], False, features=features("👍"), source="user"),
        label(2, CLEAN[0], False, author="", source="user"),
    ])  # fmt: skip
    assert (run.state.refused, run.state.taken) == ({"unknown_label": 1}, 2)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ({"model": "sarcasm"}, "no classifier 'sarcasm'"),
        ({"features": b""}, "features"),
        ({"features": b"\x01\x05\x01"}, "cut off"),
    ],
)
def test_a_broken_label_is_refused_by_name(broken: dict[str, Any], match: str) -> None:
    run = Run(EAGER).take(honest(4))
    before = msgspec.msgpack.encode(run.states)
    bad: Label = msgspec.structs.replace(label(9, CLEAN[0], True), **broken)
    with pytest.raises((InvalidLabel, ValueError), match=match):
        run.take([bad])
    assert msgspec.msgpack.encode(run.states) == before


@pytest.mark.parametrize("written", ["the archive alone", "both"])
def test_a_crash_while_a_champion_is_filed_loses_nothing(written: str) -> None:
    """A checkpoint writes the archive, which is new, before the classifier's own state."""
    run, labels = promoted()
    champion = run.state.challenger
    following, more = honest(1, first=labels), honest(5, first=labels + 1)
    whole = Run(EAGER, states=dict(run.states)).take([*following, *more])
    lost = Run(EAGER, states=dict(run.states)).take(following)
    archive = f"toxicity@{run.state.version}"
    durable = {**run.states, archive: lost.states[archive]} if written == "the archive alone" else lost.states
    again = Run(EAGER, states=dict(durable)).take([*(following if written == "the archive alone" else []), *more])
    assert again.states[archive].weights == champion
    assert msgspec.msgpack.encode(again.state) == msgspec.msgpack.encode(whole.state)


def test_another_shipped_model_begins_anew() -> None:
    run, labels = promoted()
    run.states["toxicity"] = msgspec.structs.replace(run.state, shipped="of another release")
    run.take(honest(1, first=labels))
    assert run.state.version == learner().version
    assert run.state.taken == 1


def test_hours_are_those_of_the_log_and_none_returns() -> None:
    rules = replace(EAGER, users=replace(EAGER.users, author_an_hour=2))
    at = [0, 10, 20, 3600, 3610, 1800, 7300]
    run = Run(rules).take([
        label(n, CLEAN[0], False, source="user", author="eve", at=START + timedelta(seconds=each))
        for n, each in enumerate(at)
    ])  # fmt: skip
    assert run.state.refused == {"author_rate": 2}
    assert run.state.taken == 5
