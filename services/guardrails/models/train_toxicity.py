"""Train the toxicity classifier: `python -m services.guardrails.models.train_toxicity --data DATA`.

Two logistic regressions (toxic; hateful) over the features of `scanners.toxicity_features`. A source of n texts weighs
sqrt(n), classes weigh alike. Swear words of a part of the abusive texts are disguised. A long toxic comment stands for
its worst sentences only (two rounds of multiple-instance learning). Printed: the AUC of every source by a model that was
trained without it, and, by cross-validation where a source of benign prompts stands wholly in one fold, the margin that
`--false-positives` of the benign prompts reach; it is folded into the bias, so that 0.5 is the operating point.
"""

import argparse
import asyncio.subprocess
import csv
import http.client
import inspect
import json
import logging
import random
import signal
import socketserver
import subprocess
import threading
import unittest.case
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from penstock.embedding.static import shared_static_embedding
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from services.guardrails.models import toxicity_phrases as phrases
from services.guardrails.scanners.segments import sentences
from services.guardrails.scanners.toxicity import _PIECE, MODEL, ToxicityModel, ToxicityScanner
from services.guardrails.scanners.toxicity_features import BITS, features, read

Array = npt.NDArray[Any]
VERSION = "2026.11.1"
SEED = 3
FOLDS = 5
# Weight of the three families beside each other.
_SCALES = (0.6, 0.6, 1.0)
_LONG = 200
"""Characters from which a toxic comment is more than one sentence."""


@dataclass(slots=True)
class Row:
    """`toxic` and `hateful` are labels; `hateful` None where the source does not say."""

    text: str
    toxic: int
    hateful: int | None
    source: str
    group: str


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: --data names the folder of toxicity/, injection/, topics/, ...")
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _hateful(row: dict[str, Any]) -> int | None:
    """The encyclopaedia's comments are not labelled for hatred; what is not even toxic is not hateful."""
    return int(row["hate"]) if row["source"] == "davidson" else None if row["label"] else 0


def rows(data: Path) -> list[Row]:
    rng = random.Random(SEED)
    found = [
        Row(r["text"], r["label"], _hateful(r), r["source"], r["text"])
        for r in _lines(data / "toxicity/train.jsonl")
    ]  # fmt: skip
    with (data / "toxicity/identity_templates.csv").open(newline="", encoding="utf-8") as file:
        identities = list(csv.DictReader(file))
    named = [r for r in identities if r["template"] == "name_adj"]
    for r in [r for r in identities if r["template"] != "name_adj"] + rng.sample(named, 1500):
        toxic = int(r["toxicity"] == "toxic")
        hateful = toxic if r["template"] != "you_occupation" else 0
        found.append(Row(r["phrase"], toxic, hateful, "identity", r["phrase"]))
    for label, templates in ((1, phrases.ABUSE), (0, phrases.HARMLESS)):
        for index, text in phrases.draw(templates, 14, SEED):
            hateful = int(label and ("{G}" in templates[index] or "{a}" in templates[index]))
            found.append(Row(text, label, hateful, "own", f"{label}-{index}"))
    for r in _lines(data / "injection/train.jsonl"):
        if not r["label"]:
            found.append(Row(r["text"][:1500], 0, 0, f"prompts {r['source']}", r["text"]))  # noqa: PERF401
    found += [Row(text, 0, 0, "prompts source code", text) for text in source_code()]
    found += [
        Row(r["response"], 0, 0, "prompts answers", r["response"]) for r in _lines(data / "groundedness/train.jsonl")
    ]
    insults = frozenset(
        "fuck fucking bitch bitches shit asshole idiot moron hoe faggot cunt stupid dick pussy whore retard bastard "
        "dumbass".split()
    )
    disguised = [
        Row(text, 1, r.hateful, f"{r.source} disguised", r.group)
        for r in rng.sample([r for r in found if r.toxic and r.source in ("davidson", "wiki")], 5000)
        if (text := phrases.disguised(r.text, insults, rng)) != r.text
    ]
    return found + disguised


def source_code() -> list[str]:
    """Stretches of modules of the standard library that speak of processes: killing and aborting are their trade."""
    found = []
    for module in (
        subprocess,
        asyncio.subprocess,
        signal,
        threading,
        unittest.case,
        socketserver,
        http.client,
        logging,
    ):
        lines = inspect.getsource(module).splitlines()
        found += ["\n".join(lines[start : start + 6]) for start in range(0, len(lines), 6)]
    return [text for text in found if len(text) > 40]


def matrix(pieces: list[list[str]]) -> sp.csr_matrix:
    """Features of pieces given as their words, shape (pieces, 2 * 2^BITS + dimension)."""
    blocks = []
    for first in range(0, len(pieces), 2000):
        some = pieces[first : first + 2000]
        found = features(some, shared_static_embedding())
        parts = []
        for slots, owners, scale in (
            (found.word_slots, found.word_pieces, _SCALES[0]),
            (found.char_slots, found.char_pieces, _SCALES[1]),
        ):
            sizes = np.sqrt(np.maximum(np.bincount(owners, minlength=len(some)), 1))
            values = (scale / sizes[owners]).astype(np.float32)
            parts.append(sp.csr_matrix((values, (owners, slots)), shape=(len(some), 1 << BITS)))
        blocks.append(sp.hstack([*parts, sp.csr_matrix(found.embedded * _SCALES[2])]).tocsr())
    return sp.vstack(blocks).tocsr()


def weights(group: Array, labels: Array) -> Array:
    counts = Counter(zip(group, labels, strict=True))
    found = np.array([counts[key] ** -0.5 for key in zip(group, labels, strict=True)])
    for label in (0, 1):
        found[labels == label] *= len(labels) / 2 / found[labels == label].sum()
    return found


class Trainer:
    """Features of all rows once; fits on any subset."""

    def __init__(self, found: list[Row], c: float) -> None:
        self.rows, self.c = found, c
        self.sources = np.array([row.source.removesuffix(" disguised") for row in found])
        self.toxic = np.array([row.toxic for row in found])
        self.hateful = np.array([-1 if row.hateful is None else row.hateful for row in found])
        self.features = matrix([read(row.text) or ["."] for row in found])

    def fit(self, chosen: Array, labels: Array) -> tuple[Array, float]:
        model = LogisticRegression(C=self.c, solver="liblinear", random_state=SEED)
        model.fit(self.features[chosen], labels[chosen], sample_weight=weights(self.sources[chosen], labels[chosen]))
        return model.coef_[0].astype(np.float32), float(model.intercept_[0])

    def worst_sentences(self, coefficients: Array) -> None:
        """Let every long toxic comment stand for its two worst sentences."""
        for index in np.flatnonzero(self.toxic == 1):
            text = self.rows[index].text
            if len(text) > _LONG:
                pieces = [read(text[start:end]) for start, end in sentences(text, _PIECE)]
                pieces = [piece for piece in pieces if piece]
                if len(pieces) > 2:
                    order = np.argsort(-(matrix(pieces) @ coefficients))
                    self.rows[index].text = " ".join(" ".join(pieces[place]) for place in sorted(order[:2]))
        self.features = matrix([read(row.text) or ["."] for row in self.rows])


def shipped(columns: list[tuple[Array, float]], thresholds: list[float]) -> ToxicityModel:
    """The weights as the scanner reads them, rounded as they are stored."""
    half, size = 1 << BITS, len(columns[0][0])
    stacked = np.stack([column for column, _ in columns], axis=1)
    bias = np.array([b - t for (_, b), t in zip(columns, thresholds, strict=True)], np.float32)
    word, char, embedded = (
        (stacked[a:b] * scale).astype(np.float16).astype(np.float32)
        for (a, b), scale in zip(((0, half), (half, 2 * half), (2 * half, size)), _SCALES, strict=True)
    )
    return ToxicityModel(word, char, embedded, bias, VERSION)


def scanner_scores(model: ToxicityModel, texts: list[str]) -> Array:
    """Margins of (TOXICITY, HATE) as the scanner gives them, shape (texts, 2)."""
    from services.guardrails.findings import Reference, Rule

    scanner, rule, reference = ToxicityScanner(model, shared_static_embedding()), Rule("block", 0.5, True), Reference()
    found = np.full((len(texts), 2), -30.0)
    for index, text in enumerate(texts):
        for span in scanner.scan(text, rule, reference):
            score = min(max(span.score, 1e-12), 1 - 1e-12)
            found[index, int(span.kind == "HATE")] = np.log(score / (1 - score))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--c", type=float, default=2.0)
    parser.add_argument("--false-positives", type=float, default=0.004)
    options = parser.parse_args()
    trainer = Trainer(rows(options.data), options.c)
    everything = np.ones(len(trainer.rows), dtype=bool)
    trainer.worst_sentences(trainer.fit(everything, trainer.toxic)[0])
    print(Counter(trainer.sources), flush=True)

    figures: dict[str, Any] = {"auc_by_source_not_trained_on": {}}
    group = np.array([row.group if trainer.sources[i] == "own" else "" for i, row in enumerate(trainer.rows)])
    original = {row.group: row.text for row in rows(options.data) if not row.source.endswith("disguised")}
    for source in ("wiki", "davidson", "identity"):
        held = trainer.sources == source
        column = trainer.fit(~held, trainer.toxic)
        judged = [i for i in np.flatnonzero(held) if not trainer.rows[i].source.endswith("disguised")]
        judged = random.Random(SEED).sample(judged, min(3000, len(judged)))
        found = scanner_scores(shipped([column, column], [0.0, 0.0]), [original[trainer.rows[i].group] for i in judged])
        auc = roc_auc_score(trainer.toxic[judged], found[:, 0])
        figures["auc_by_source_not_trained_on"][source] = round(float(auc), 4)
    own = np.array([hash_fold(name) for name in group])
    scores = np.zeros(len(own))
    for fold in range(3):
        held = (trainer.sources == "own") & (own == fold)
        coefficients, bias = trainer.fit(~held, trainer.toxic)
        scores[held] = trainer.features[held] @ coefficients + bias
    mine = trainer.sources == "own"
    figures["auc_own_templates_held_out"] = round(float(roc_auc_score(trainer.toxic[mine], scores[mine])), 4)
    print(json.dumps(figures), flush=True)

    margins, labels = cross_validated(trainer, options.data, original)
    thresholds = [
        float(np.quantile(margins[labels == "prompts", head], 1 - options.false_positives)) for head in (0, 1)
    ]
    for name in sorted(set(labels)):
        share = (margins[labels == name] >= np.array(thresholds)).mean(axis=0)
        figures[f"found_of_held_out {name}"] = [round(float(value), 4) for value in share]
    columns = [trainer.fit(everything, trainer.toxic), trainer.fit(trainer.hateful >= 0, trainer.hateful)]
    model = shipped(columns, thresholds)
    np.savez_compressed(
        options.out.with_suffix(".npz"), word=model.word.astype(np.float16), char=model.char.astype(np.float16),
        embedded=model.embedded.astype(np.float16), bias=model.bias,
    )  # fmt: skip
    metadata = {"version": VERSION, "thresholds_folded_in": thresholds, "figures": figures}
    options.out.with_suffix(".json").write_text(json.dumps(metadata, indent=1) + "\n", "utf-8")
    print(json.dumps(figures, indent=1), options.out.with_suffix(".npz").stat().st_size)


def hash_fold(name: str) -> int:
    """Stable fold of a template."""
    return sum(map(ord, name)) % 3


def cross_validated(trainer: Trainer, data: Path, original: dict[str, str]) -> tuple[Array, Array]:
    """Scanner margins of held-out texts, and what each is: toxic or harmless of a source, or a benign prompt.

    `original` has the whole text of each group.
    """
    folds: dict[str, int] = defaultdict(int)
    sizes = Counter(source for source in trainer.sources if source.startswith("prompts"))
    load = [0] * FOLDS
    for source, size in sizes.most_common():
        folds[source] = int(np.argmin(load))
        load[folds[source]] += size
    rng = np.random.default_rng(SEED)
    groups = {row.group for row in trainer.rows}
    drawn = dict(zip(sorted(groups), rng.integers(0, FOLDS, len(groups)).tolist(), strict=True))
    fold_of = np.array([
        folds[source] if source in folds else drawn[row.group]
        for source, row in zip(trainer.sources, trainer.rows, strict=True)
    ])  # fmt: skip
    topics = [row["text"] for row in _lines(data / "topics/train.jsonl")]
    margins, labels = [], []
    for fold in range(FOLDS):
        train, held = fold_of != fold, np.flatnonzero(fold_of == fold)
        columns = [
            trainer.fit(train, trainer.toxic),
            trainer.fit(train & (trainer.hateful >= 0), trainer.hateful),
        ]
        model = shipped(columns, [0.0, 0.0])
        kept = [i for i in held if trainer.sources[i] != "davidson" or rng.random() < 0.15]
        texts = [original.get(trainer.rows[i].group, trainer.rows[i].text) for i in kept]
        texts = [
            trainer.rows[i].text if trainer.sources[i] == "own" else text for i, text in zip(kept, texts, strict=True)
        ]
        margins.append(scanner_scores(model, texts + topics[fold::FOLDS]))
        for i in kept:
            source = trainer.sources[i]
            labels.append(
                "prompts" if source.startswith("prompts") else f"{source} {'toxic' if trainer.toxic[i] else 'harmless'}"
            )
        labels += ["prompts"] * len(topics[fold::FOLDS])
    return np.concatenate(margins), np.array(labels)


if __name__ == "__main__":
    main()
