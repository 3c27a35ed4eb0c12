"""Evaluations to alerts about toxic texts: single severe ones, and a share that grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Alert, Context, Evaluation, Score

from services.evaluation.core.watch import WatchRules, watching

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)
CODEC = Codec.offline(Catalogue.load())


def evaluation(toxicity: dict[str, float], number: int = 0, purpose: str = "serve") -> Evaluation:
    """Return the scores of a result; toxic from 0.5 on."""
    scores = [
        Score(name="toxicity", subject=subject, score=score, label="toxic" if score >= 0.5 else "clean")
        for subject, score in toxicity.items()
    ]
    return Evaluation(
        event_id=event_id("test", "evaluation", number), request_id=f"r{number}", tenant_id="t", occurred_at=NOW,
        causation_id="", context=Context(requested_at=NOW, purpose=purpose), model="m",
        scores=[*scores, Score(name="refusal", subject="answer", score=1.0, label="refused")],
    )  # fmt: skip


class Processor:
    """Runs the logic as the shell does, its states through their stored form each time."""

    def __init__(self, rules: WatchRules | None = None, team: Team | None = None) -> None:
        self.logic = watching(rules or WatchRules(), lambda name: team)
        self.states: dict[str, bytes] = {}
        self.offset = 0

    def _read(self, key: str) -> Any:
        stored = self.states.get(key)
        return None if stored is None else msgspec.msgpack.decode(stored, type=self.logic.state_type)

    def handle(self, record: Evaluation, now: datetime = NOW) -> list[Alert]:
        message = Message("evaluations", 0, self.offset, int(now.timestamp() * 1000), b"k", b"v")
        self.offset += 1
        out: list[Emit] = []
        for key, event in self.logic.route(record, message, self._read):
            assert key is not None
            state, emits = self.logic.step(self._read(key), event, now)
            out += emits
            self.states[key] = msgspec.msgpack.encode(state)
        for emit in out:
            assert CODEC.decode(emit.topic, CODEC.encode(emit.topic, emit.record)) == emit.record
        return [emit.record for emit in out if isinstance(emit.record, Alert)]


def test_a_severe_text_alerts_once_and_says_later_how_often() -> None:
    processor = Processor()
    (first,) = processor.handle(evaluation({"prompt": 0.97}))
    assert (first.kind, first.name, first.severity, first.sample_requests) == (
        "toxicity", "severe_prompt", "warning", ["r0"],
    )  # fmt: skip
    assert [(each.topic, each.first_offset) for each in first.evidence] == [("evaluations", 0)]
    assert processor.handle(evaluation({"prompt": 0.97}, 1), NOW + timedelta(minutes=1)) == []
    (later,) = processor.handle(evaluation({"prompt": 0.97}, 2), NOW + timedelta(minutes=11))
    assert later.fingerprint == first.fingerprint
    assert later.event_id != first.event_id
    assert later.figures["suppressed"] == 1
    (answer,) = processor.handle(evaluation({"prompt": 0.1, "answer": 0.97}, 3), NOW + timedelta(minutes=11))
    assert (answer.name, answer.severity) == ("severe_answer", "critical")


def test_the_team_sets_from_where_a_text_is_severe() -> None:
    assert Processor(team=Team(name="t", toxicity_alert=0.99)).handle(evaluation({"prompt": 0.97})) == []
    assert len(Processor(team=Team(name="t", toxicity_alert=0.6)).handle(evaluation({"prompt": 0.7}))) == 1


def test_a_share_of_toxic_texts_alerts_within_its_window_only() -> None:
    rules = WatchRules(severe_from=1.0, rate_from=0.2, rate_texts=20)

    def traffic(minutes_apart: float) -> list[Alert]:
        processor = Processor(rules)
        found = []
        for number in range(40):
            given = evaluation({"prompt": 0.9 if number % 4 == 3 else 0.1}, number)
            found += processor.handle(given, NOW + timedelta(minutes=minutes_apart * number))
        return found

    (alert,) = traffic(0.1)
    assert (alert.name, alert.sample_requests[-1]) == ("prompt_rate", "r19")
    assert alert.figures["share"] == pytest.approx(5 / 20)
    assert traffic(3.0) == []  # a window of 10 minutes never holds 20 texts


@pytest.mark.parametrize("given", [evaluation({}), evaluation({"prompt": 0.99}, purpose="evaluation")])
def test_what_says_nothing_of_traffic_is_passed_over(given: Evaluation) -> None:
    processor = Processor()
    assert processor.handle(given) == []
    assert processor.states == {}
