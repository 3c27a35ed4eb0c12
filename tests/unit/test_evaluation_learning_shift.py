"""Real texts whose insults change: honest labels put a challenger in force that scores held-out ones better.

Measured on tweets and talk pages in which the thirty commonest offensive words are replaced by coined ones, so that the
shipped model has never seen them; labels by three moderators until a challenger takes
over, 600 texts held out.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from river.metrics import ROCAUC

from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from tests.unit.learning_labels import Run, features, label, learner, prepare

LABELS, HELD_OUT = 400, 600
OFFENSIVE = (
    "bitch bitches hoe hoes pussy fuck fucking shit nigga niggas ass trash faggot faggots cunt dick stupid idiot bastard "
    "slut retard retarded whore nigger crap hell damn fag dumb"
).split()
SYLLABLES = "bla kro vex zin dor mup tas gel fro nik".split()


def shifted(data: Path) -> list[tuple[str, bool]]:
    """Texts with their labels, in an order of their own, each offensive word replaced by a coined one."""
    dice = random.Random(5)
    lines = (data / "toxicity/train.jsonl").read_text("utf-8").split("\n")
    rows = dice.sample([json.loads(line) for line in lines if line], LABELS + HELD_OUT)
    coined = {word: "".join(dice.sample(SYLLABLES, 2)) + "s" * word.endswith("s") for word in OFFENSIVE}
    pattern = re.compile(rf"\b({'|'.join(sorted(coined, key=len, reverse=True))})\b", re.IGNORECASE)
    return [(pattern.sub(lambda match: coined[match.group().lower()], row["text"]), row["label"] == 1) for row in rows]


def figures(of: ToxicityLearner, packed: bytes, held_out: list[tuple[str, bool]]) -> tuple[float, float]:
    """AUC and Brier score."""
    metric: Any = ROCAUC  # River's metrics have no types
    weights, auc, loss = of.unpack(packed), metric(n_thresholds=400), 0.0
    for text, toxic in held_out:
        score = of.score(features(text), weights)
        auc.update(toxic, score)
        loss += (toxic - score) ** 2
    return auc.get(), loss / len(held_out)


def test_honest_labels_of_changed_words_promote_a_challenger_that_is_better_on_held_out_texts(data: Path) -> None:
    rows = shifted(data)
    prepare([text for text, _ in rows])
    taught, held_out = rows[:LABELS], rows[LABELS:]
    run = Run(LearningRules())
    for number, (text, toxic) in enumerate(taught):
        run.take([label(number, text, toxic, author=("ada", "alan", "edsger")[number % 3])])
        if run.alerts("model_promoted"):
            break
    promotions = run.alerts("model_promoted")
    assert promotions
    of = learner()
    auc_shipped, brier_shipped = figures(of, of.pack(of.shipped()), held_out)
    champion = run.models(f"toxicity@{promotions[-1].labels['version']}")[0].weights
    auc, brier = figures(of, champion, held_out)
    print(
        f"after {run.state.taken} labels: AUC {auc_shipped:.3f} to {auc:.3f}, Brier {brier_shipped:.3f} to {brier:.3f}"
    )
    assert auc > auc_shipped + 0.03
    assert brier < 0.75 * brier_shipped
