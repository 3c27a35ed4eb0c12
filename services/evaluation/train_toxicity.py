"""Trains the toxicity model that is shipped: ``python -m services.evaluation.train_toxicity DATA OUT``.

DATA holds toxicity/train.jsonl, toxicity/identity_templates.csv, injection/train.jsonl (its benign prompts) and
groundedness/train.jsonl (its answers, taken as benign). Prints held-out figures, writes the weights as npz.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.compose import FuncTransformer, Pipeline
from river.feature_extraction import BagOfWords
from river.linear_model import LogisticRegression
from river.optim import AdaGrad
from river.preprocessing import FeatureHasher

from services.evaluation.core.toxicity import HASH_BITS, HASH_SEED, ToxicityModel, features, pieces

_SEED = 7
_EPOCHS = 3
_HELD_OUT = 0.1
# Of the 72,000 phrases of one template; the other templates are taken whole.
_NAME_PHRASES = 5_000
_SENTENCES = 1_500
# An identity must not count as an insult, nor an insult be forgiven for it: sentences of both kinds with any two identities.
_NEUTRAL = (
    "My neighbour is a {} {} person.",
    "She is {} and {}.",
    "The {} and the {} communities of our town meet on Sunday.",
    "I am a proud {} {} parent.",
    "How many {} or {} people work there?",
)
_HATEFUL = (
    "{} and {} people are disgusting.",
    "I can't stand {} or {} people, they should all die.",
    "Get rid of the {} and the {} ones.",
    "{} people are vermin, and so are {} people.",
    "No {} or {} person deserves any respect.",
)
# The encyclopaedia's talk pages are few beside the tweets and nearer to what people write to an assistant.
_WIKI_WEIGHT = 2
_LEARNING_RATE = 0.3

Example = tuple[str, bool]


def read(data: Path) -> dict[str, list[Example]]:
    """Return the examples by source."""
    sources: dict[str, list[Example]] = {"tweets": [], "talk pages": [], "templates": [], "prompts": [], "answers": []}
    for row in _lines(data / "toxicity/train.jsonl"):
        sources["talk pages" if row["source"] == "wiki" else "tweets"].append((row["text"], row["label"] == 1))
    sources["templates"] = _identity_phrases(data / "toxicity/identity_templates.csv")
    sources["prompts"] = [(row["text"], False) for row in _lines(data / "injection/train.jsonl") if row["label"] == 0]
    sources["answers"] = [(row["response"], False) for row in _lines(data / "groundedness/train.jsonl")]
    return sources


def _identity_phrases(path: Path) -> list[Example]:
    rng = random.Random(_SEED)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    identities = sorted({row["phrase"].split()[-1] for row in rows if row["template"] == "verb_adj"})
    names = [row for row in rows if row["template"] == "name_adj"]
    chosen = [row for row in rows if row["template"] != "name_adj"] + rng.sample(names, _NAME_PHRASES)
    phrases = [(row["phrase"], row["toxicity"] == "toxic") for row in chosen]
    for templates, toxic in ((_NEUTRAL, False), (_HATEFUL, True)):
        phrases += [(rng.choice(templates).format(*rng.sample(identities, 2)), toxic) for _ in range(_SENTENCES)]
    return phrases


def split(sources: dict[str, list[Example]]) -> tuple[list[Example], dict[str, list[Example]]]:
    """Return training examples and, by source, held-out ones."""
    rng = random.Random(_SEED)
    train: list[Example] = []
    held: dict[str, list[Example]] = {}
    for name, examples in sources.items():
        shuffled = rng.sample(examples, len(examples))
        cut = int(len(shuffled) * _HELD_OUT) if name != "talk pages" else len(shuffled) // 3
        held[name] = shuffled[:cut]
        rest = shuffled[cut:]
        train += rest * (_WIKI_WEIGHT if name == "talk pages" else 1)
    return train, held


def pipeline() -> Any:
    """Return the River pipeline: words and their 4-grams, hashed, unit length, logistic regression."""
    return Pipeline(
        BagOfWords(lowercase=False, strip_accents=False, tokenizer=lambda text: list(features(pieces(text)[0]))),
        FeatureHasher(n_features=2**HASH_BITS, seed=HASH_SEED, alternate_sign=False),
        FuncTransformer(_unit_length),
        LogisticRegression(optimizer=AdaGrad(_LEARNING_RATE)),
    )


def _unit_length(x: dict[int, int]) -> dict[int, float]:
    return dict.fromkeys(x, len(x) ** -0.5) if x else {}


def fit(train: list[Example], epochs: int = _EPOCHS) -> tuple[NDArray[np.float32], float]:
    """Return weights, shape (2 ** HASH_BITS,), and intercept."""
    model = pipeline()
    for epoch in range(epochs):
        examples = random.Random(_SEED + epoch).sample(train, len(train))
        for text, toxic in examples:
            model.learn_one(text, toxic)
    regression = model["LogisticRegression"]
    weights = np.zeros(2**HASH_BITS, dtype=np.float32)
    for bucket, weight in regression.weights.items():
        weights[bucket] = weight
    return weights, float(regression.intercept)


def report(model: ToxicityModel, held: dict[str, list[Example]]) -> dict[str, dict[str, float]]:
    """Return, by source and for all together, AUC and rates at the threshold."""
    figures = {}
    for name, examples in {**held, "together": [example for part in held.values() for example in part]}.items():
        figures[name] = _figures(examples, lambda text: model.score(text, {}, 0.0).score, model.threshold)
    return figures


def _figures(examples: list[Example], score: Callable[[str], float], threshold: float) -> dict[str, float]:
    scores: dict[bool, list[float]] = {True: [], False: []}
    for text, toxic in examples:
        scores[toxic].append(score(text))
    figures: dict[str, float] = {"texts": len(examples)}
    if scores[True] and scores[False]:
        figures["auc"] = round(_auc(scores[True], scores[False]), 4)
    if scores[True]:
        figures["recall"] = round(sum(value >= threshold for value in scores[True]) / len(scores[True]), 4)
    if scores[False]:
        figures["false_positive_rate"] = round(sum(v >= threshold for v in scores[False]) / len(scores[False]), 4)
    return figures


def _auc(toxic: list[float], clean: list[float]) -> float:
    """Return the chance that a toxic text scores above a clean one, ties counting half (the Mann-Whitney statistic)."""
    ordered = np.sort(np.array(clean))
    below = np.searchsorted(ordered, toxic, "left").sum()
    not_above = np.searchsorted(ordered, toxic, "right").sum()
    return float((below + not_above) / 2 / (len(toxic) * len(clean)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def main(data: Path, out: Path) -> None:
    """Train, report, write."""
    sources = read(data)
    train, held = split(sources)
    started = time.perf_counter()
    weights, intercept = fit(train)
    # Half precision is exact to 3 digits, which moves no score by more than 0.001, and halves the file.
    weights = weights.astype(np.float16).astype(np.float32)
    model = ToxicityModel(weights, intercept, threshold=0.5, version="candidate")
    print(
        f"trained on {len(train)} texts in {time.perf_counter() - started:.0f} s, {np.count_nonzero(weights)} weights"
    )
    for name, figures in report(model, held).items():
        print(f"{name:12s}", figures)
    np.savez_compressed(
        out,
        weights=weights.astype(np.float16),
        intercept=np.float64(intercept),
        threshold=np.float64(model.threshold),
        hash_bits=np.int64(HASH_BITS),
    )
    print(f"wrote {out}, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
