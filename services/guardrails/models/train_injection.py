"""Train the two injection classifiers: `python -m services.guardrails.models.train_injection --data DATA`.

`prompt` judges a whole prompt, `document` one sentence of a document. Each is a logistic regression over the n-grams of
`scanners.ngrams`. Cross-validation: five folds; a benign source stands wholly in one fold, so that a false positive is
measured on prompts of a kind the model has not seen; attacks are split by near-duplicate cluster. The threshold is the
score that at most `--false-positives` of the held-out benign prompts reach; for documents, of the benign documents,
each by its highest sentence. It is folded into the bias, so that a score of 0.5 is the operating point. The figures are
given for the classifier alone and together with the rules, as the scanner combines them.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from services.guardrails.models.injection_corpus import Row, bipia_documents, document_rows, prompt_rows
from services.guardrails.scanners.injection_rules import combine, strongest_rule
from services.guardrails.scanners.ngrams import char_slots, word_slots
from services.guardrails.scanners.normalise import canonical
from services.guardrails.scanners.segments import sentences, unwrapped

VERSION = "2026.11.1"
FOLDS = 5
Array = npt.NDArray[Any]


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
    """Counts of every row once; fits on any subset of them."""

    def __init__(self, rows: list[Row], bits: int, c: float, seed: int) -> None:
        texts = [canonical(row.text) for row in rows]
        self.word, self.char = _counts(texts, word_slots, bits), _counts(texts, char_slots, bits)
        self.labels = np.array([row.label for row in rows])
        self.c, self.seed = c, seed
        sizes = Counter((row.source, row.label) for row in rows)
        # A source of n rows weighs sqrt(n): the largest one must not decide what a prompt looks like. Classes weigh alike.
        self.weights = np.array([sizes[row.source, row.label] ** -0.5 for row in rows])
        for label in (0, 1):
            mine = self.labels == label
            self.weights[mine] *= len(rows) / 2 / self.weights[mine].sum()

    def fit(self, train: Array) -> tuple[Array, Array, Array, Array, float]:
        """(word weights, char weights, word idf, char idf, bias) fitted on the rows of the mask `train`."""
        word_idf, char_idf = _idf(self.word[train]), _idf(self.char[train])
        features = sp.hstack([_unit(self.word[train], word_idf), _unit(self.char[train], char_idf)]).tocsr()
        model = LogisticRegression(C=self.c, solver="liblinear", random_state=self.seed)
        model.fit(features, self.labels[train], sample_weight=self.weights[train])
        weights = model.coef_[0].astype(np.float32)
        half = self.word.shape[1]
        return weights[:half], weights[half:], word_idf, char_idf, float(model.intercept_[0])

    def margins(self, fitted: tuple[Array, Array, Array, Array, float], rows: Array) -> Array:
        word, char, word_idf, char_idf, bias = fitted
        return np.asarray(_unit(self.word[rows], word_idf) @ word + _unit(self.char[rows], char_idf) @ char + bias)


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


def cross_validate(trainer: Trainer, folds: Array) -> Array:
    """Margin of every row from a model that has not seen its fold."""
    held_out = np.zeros(len(folds))
    for fold in range(FOLDS):
        held_out[folds == fold] = trainer.margins(trainer.fit(folds != fold), folds == fold)
    return held_out


def benign_scores(rows: list[Row], margins: Array, by_cluster: bool) -> Array:
    """Margins of the benign rows; by cluster, the highest of each document's sentences."""
    highest: dict[str, float] = {}
    for i, row in enumerate(rows):
        if not row.label:
            key = row.cluster if by_cluster else str(i)
            highest[key] = max(highest.get(key, -np.inf), float(margins[i]))
    return np.array(list(highest.values()))


def figures(rows: list[Row], margins: Array, threshold: float) -> dict[str, Any]:
    labels = np.array([row.label for row in rows])
    sources = np.array([row.source for row in rows])
    shares = {
        f"{source} ({'attack' if label else 'benign'})": {
            "rows": int(mask.sum()),
            "flagged": round(float((margins[mask] >= threshold).mean()), 4),
        }
        for source in sorted(set(sources))
        for label in (0, 1)
        if (mask := (sources == source) & (labels == label)).any()
    }
    at_one_percent = np.quantile(margins[labels == 0], 0.99)
    ruled = np.array([strongest_rule(unwrapped(canonical(row.text)))[1] for row in rows])
    learned = 1 / (1 + np.exp(-(margins - threshold)))
    both = np.array([combine(rule, score) for rule, score in zip(ruled, learned, strict=True)])
    return {
        "with_rules": {
            "auc": round(float(roc_auc_score(labels, both)), 4),
            "recall_at_threshold": round(float((both[labels == 1] >= 0.5).mean()), 4),
            "false_positives_at_threshold": round(float((both[labels == 0] >= 0.5).mean()), 5),
            "recall_by_source": {
                s: round(float((both[(sources == s) & (labels == 1)] >= 0.5).mean()), 4)
                for s in sorted(set(sources[labels == 1]))
            },
        },
        "auc": round(float(roc_auc_score(labels, margins)), 4),
        "recall_at_1_percent_false_positives": round(float((margins[labels == 1] >= at_one_percent).mean()), 4),
        "recall_at_threshold": round(float((margins[labels == 1] >= threshold).mean()), 4),
        "false_positives_at_threshold": round(float((margins[labels == 0] >= threshold).mean()), 5),
        "by_source": shares,
    }


def document_auc(data: Path, trainer_bits: int, trainer: Trainer, rows: list[Row], seed: int) -> dict[str, float]:
    """AUC and recall over BIPIA's documents, each scored by its highest sentence with a model that has not seen its
    lines.
    """
    clean, poisoned = bipia_documents(data)
    documents = [(text, 0, f"bipia-clean-{i}") for i, text in enumerate(clean)] + [
        (text, 1, f"bipia-{line}") for text, line in poisoned
    ]
    fold_of = np.random.default_rng(seed).integers(0, FOLDS, len(documents))
    scores = np.zeros(len(documents))
    for fold in range(FOLDS):
        held = {documents[i][2] for i in np.flatnonzero(fold_of == fold)}
        fitted = trainer.fit(np.array([row.cluster not in held for row in rows]))
        for i in np.flatnonzero(fold_of == fold):
            pieces = [canonical(documents[i][0][a:b]) for a, b in sentences(documents[i][0])]
            word, char = _counts(pieces, word_slots, trainer_bits), _counts(pieces, char_slots, trainer_bits)
            margins = _unit(word, fitted[2]) @ fitted[0] + _unit(char, fitted[3]) @ fitted[1] + fitted[4]
            scores[i] = margins.max()
    labels = np.array([label for _, label, _ in documents])
    return {"auc": round(float(roc_auc_score(labels, scores)), 4), "documents": len(documents)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with injection/train.jsonl and its neighbours")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--bits", type=int, default=18, help="log2 of the slots of each table")
    parser.add_argument("--c", type=float, default=50.0, help="inverse strength of the L2 regularisation")
    parser.add_argument(
        "--false-positives",
        type=float,
        default=0.005,
        help="share of held-out benign prompts that may reach the threshold",
    )
    parser.add_argument(
        "--document-false-positives", type=float, default=0.01, help="the same for held-out benign documents"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=["prompt", "document"])
    args = parser.parse_args()
    for name, build in (("prompt", prompt_rows), ("document", document_rows)):
        if args.only in (None, name):
            rows = build(args.data)
            trainer = Trainer(rows, args.bits, args.c, args.seed)
            allowed = args.document_false_positives if name == "document" else args.false_positives
            margins = cross_validate(trainer, assign_folds(rows, args.seed))
            threshold = float(np.quantile(benign_scores(rows, margins, by_cluster=name == "document"), 1 - allowed))
            report = figures(rows, margins, threshold)
            if name == "document":
                report["bipia_documents"] = document_auc(args.data, args.bits, trainer, rows, args.seed)
            word, char, word_idf, char_idf, bias = trainer.fit(np.ones(len(rows), dtype=bool))
            np.savez_compressed(
                args.out / f"injection_{name}.npz",
                word=word.astype(np.float16),
                char=char.astype(np.float16),
                word_idf=word_idf.astype(np.float16),
                char_idf=char_idf.astype(np.float16),
            )
            metadata = {
                "name": f"injection_{name}",
                "version": VERSION,
                "bits": args.bits,
                "bias": round(bias - threshold, 6),
                "threshold": 0.5,
                "rows": len(rows),
                "positive": int(trainer.labels.sum()),
                "c": args.c,
                "seed": args.seed,
                "cross_validation": report,
            }
            (args.out / f"injection_{name}.json").write_text(
                json.dumps(metadata, indent=1, ensure_ascii=False) + "\n", "utf-8"
            )
            print(name, json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
