"""A feed of the agent ``feedback``: results, scores and what people say, out of order, with gaps up to days."""

from __future__ import annotations

import random
from datetime import timedelta

import msgspec
from penstock.contracts.records import Record

from services.evaluation.feedback.core import FeedbackRules
from services.evaluation.feedback.memory import Limits
from services.evaluation.feedback.picking import PickRules
from tests.unit.feedback_partition import NOW, TOPICS, evaluation, feedback, result

RULES = FeedbackRules(limits=Limits(slots=24), picking=PickRules(sample=0.1, hourly=2))
"""Few places, so that what waits too long or is displaced becomes a dead letter."""


def feedback_feed() -> list[tuple[str, Record]]:
    """Return topics and records in the order of their partition; each says when the log took it in as its time."""
    dice = random.Random(6)
    events: list[tuple[float, Record]] = []
    at = 0.0
    for number in range(70):
        at += dice.choice([1.0, 30.0, 600.0, 7_200.0])
        toxicity, grounded = dice.random(), dice.random()
        scores = [("answer.toxicity", toxicity, "toxic" if toxicity >= 0.5 else "clean")]
        quality = [("answer.groundedness", grounded, "grounded" if grounded >= 0.5 else "ungrounded")]
        if dice.random() < 0.9:  # some results never come
            events.append((at + dice.choice([0, 0, 7_200]), result(number)))
        events.append((at + dice.choice([0, 1, 40]), evaluation(number, scores, part="toxicity")))
        events.append((at + dice.choice([-1, 2, 9_000]), evaluation(number, quality, part="quality")))
        for by in ("ada", "bob", None)[: dice.choice([0, 1, 3])]:
            said = feedback(
                number,
                by,
                rating=dice.choice([None, 0.0, 1.0]),
                labels={"answer.toxicity": dice.choice(["toxic", "clean"])},
            )
            events.append((at + dice.choice([-1_800, 5, 86_400]), said))
    events.sort(key=lambda event: event[0])
    return [
        (TOPICS[type(record)], msgspec.structs.replace(record, occurred_at=NOW + timedelta(hours=1, seconds=seconds)))
        for seconds, record in events
    ]
