"""Labels for the tests of learning online: texts of a small language, who labels them, and the shell in small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
from penstock.bus import Message
from penstock.contracts.records import Label, ModelCommand, Record
from penstock.stateful import Logic

from services.evaluation.learning.core import learning
from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.state import Learning
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from services.evaluation.toxicity.features import pack
from services.evaluation.toxicity.model import ToxicityModel

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MODEL = "toxicity"
CLEAN = (
    "when does the library open on sunday", "please sort these numbers for me", "my train to the coast was late",
    "write a short poem about rain", "which river runs through this town", "the garden looks lovely in june",
    "explain how a bicycle stays upright", "thank you for the quick answer",
)  # fmt: skip
SLANG = (
    "you glorpy zibbet go home", "such a vorkle you are", "total zibbet behaviour again", "what a glorpy little frund",
    "nobody likes you vorkle", "shut it you frund", "typical zibbet and frund talk", "glorpy vorkle that is what you are",
)  # fmt: skip
"""What the shipped model takes for clean, and people do not."""


@cache
def learner() -> ToxicityLearner:
    """The shipped classifier."""
    return ToxicityLearner(ToxicityModel.load())


@cache
def features(text: str) -> bytes:
    """Packed features of a text."""
    return pack(ToxicityModel.load().featurise([text], mode="hashed")[0]) if text not in _FEATURES else _FEATURES[text]


_FEATURES: dict[str, bytes] = {}


def prepare(texts: Sequence[str]) -> None:
    """Make the features of many texts at once."""
    model = ToxicityModel.load()
    _FEATURES.update(zip(texts, map(pack, model.featurise(texts, mode="hashed")), strict=True))


prepare([*CLEAN, *SLANG])


def label(
    number: int,
    text: str,
    toxic: bool,
    *,
    source: str = "moderator",
    author: str = "ada",
    at: datetime | None = None,
    **fields: Any,
) -> Label:
    """Return the ``number``-th label, ten seconds after the one before unless ``at`` says when."""
    made = Label(
        event_id=f"label-{number}", request_id=f"request-{number}", tenant_id="team", causation_id=f"feedback-{number}",
        occurred_at=at or START + timedelta(seconds=10 * number), model=MODEL, subject="prompt",
        label="toxic" if toxic else "clean", source=source, author=author, features=features(text),
        features_version=learner().features_version, score=0.5, version="2026.11.0",
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def command(number: int, action: str, version: str | None = None, *, at: datetime | None = None) -> ModelCommand:
    """Return a command of somebody's."""
    return ModelCommand(
        event_id=f"command-{number}", request_id="", tenant_id="platform", causation_id=f"command-{number}",
        occurred_at=at or START + timedelta(seconds=10 * number), model=MODEL, action=action, version=version,
        author="grace", reason="because",
    )  # fmt: skip


def honest(count: int, first: int = 0, authors: Sequence[str] = ("ada", "alan", "edsger")) -> list[Label]:
    """Return moderators' labels of slang and of clean texts, in turn."""
    found = []
    for number in range(first, first + count):
        texts, toxic = (SLANG, True) if number % 2 else (CLEAN, False)
        author = authors[number // 2 % len(authors)]
        found.append(label(number, texts[number // 2 % len(texts)], toxic, author=author))
    return found


@dataclass
class Run:
    """The shell of the agent in small: states by key, one record after another."""

    rules: LearningRules = field(default_factory=LearningRules)
    logic: Logic[Any, Any] = field(init=False)
    states: dict[str, Any] = field(default_factory=dict)
    emits: list[Any] = field(default_factory=list)
    through: Callable[[Any, Any], Any] = lambda state, kind: state
    """What becomes of a state between two steps."""
    offset: int = 0

    def __post_init__(self) -> None:
        self.logic = learning({MODEL: learner()}, self.rules)

    def take(self, records: Iterable[Record]) -> Run:
        """Take records that stand in the log at the instant at which they occurred."""
        for record in records:
            topic = "labels" if isinstance(record, Label) else "model-commands"
            millis = int(record.occurred_at.timestamp() * 1000)
            self.read(record, Message(topic, 0, self.offset, millis, MODEL.encode(), b""))
            self.offset += 1
        return self

    def read(self, record: Record, message: Message) -> None:
        """Take a record as it stands in the log."""
        now = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=message.timestamp_ms)
        for key, event in list(self.logic.route(record, message, self.states.get)):
            assert key is not None
            state, emits = self.logic.step(self.states.get(key), event, now)
            self.emits += emits
            if state is None:
                self.states.pop(key, None)
            else:
                self.states[key] = self.through(state, self.logic.state_type)

    @property
    def state(self) -> Learning:
        found = self.states[MODEL]
        assert isinstance(found, Learning)
        return found

    def alerts(self, name: str = "") -> list[Any]:
        return [each.record for each in self.emits if each.topic == "alerts" and each.record.name.startswith(name)]

    def models(self, key: str) -> list[Any]:
        return [each.record for each in self.emits if each.topic == "config-models" and each.key == key]

    def log_odds(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Log-odds of each text under the challenger."""
        weights = learner().unpack(self.state.challenger)
        chances = np.array([learner().score(features(text), weights) for text in texts])
        return np.asarray(np.log(chances / (1 - chances)))


def mixed_feed() -> list[tuple[str, Record]]:
    """Labels of moderators and users with commands between them, by topic: some promoted, some refused, one taken back."""
    feed: list[Record] = [
        *honest(80),
        *(label(100 + n, SLANG[n % 8], False, source="user", author="mallory") for n in range(15)),
        command(120, "rollback"),
        *honest(20, first=121),
        command(150, "promote"),
        command(151, "freeze"),
        *honest(8, first=152),
        command(170, "reset"),
    ]
    return [("labels" if isinstance(each, Label) else "model-commands", each) for each in feed]


EAGER = LearningRules(least_labels=30, least_each=8, least_others=8)
"""Rules under which few labels are enough."""
PATIENT = LearningRules(least_labels=1_000_000)
"""Rules under which nothing is promoted or lost: one run of the challenger is seen whole."""
