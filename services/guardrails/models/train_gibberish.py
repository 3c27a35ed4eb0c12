"""Train the gibberish classifier: `python -m services.guardrails.models.train_gibberish --data DATA --tree DIR...`.

Ordinary text of every sort (`gibberish_corpus`) is drawn into three parts by source file: character and word statistics
are counted on the first; windows of the second, and of prompts with synthetic suffixes (`suffixes`), train
gradient-boosted trees; the third gives the figures. A text's score is its highest window. The threshold is the score that
`--false-positives` of the texts of the third part reach, kinds weighing alike, and is folded into the bias: 0.5 is the
operating point. Recall is given for every family of suffixes by a model that was not trained on that family.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from penstock.embedding.minilm import packaged_model
from penstock.embedding.static import shared_static_embedding
from sklearn.ensemble import HistGradientBoostingClassifier

from services.guardrails.models import gibberish_corpus as corpus
from services.guardrails.models import suffixes
from services.guardrails.models.gibberish_corpus import Text
from services.guardrails.scanners import gibberish_features as seen
from services.guardrails.scanners.gibberish_features import FEATURES, KINDS, Statistics, Trees, describe

Array = npt.NDArray[Any]
VERSION = "2026.11.1"
SEED = 9
_MOST_WINDOWS = 10
"""Windows taken of one benign text."""
_INSIDE = 0.7
"""Share of a window that a suffix must fill for the window to count as one."""
_WRITTEN = ("prompts", "commands", "tweets", "dialogue", "messages", "encyclopaedia")
"""Kinds of text that people write."""
_WRITTEN_WEIGHT = 4.0
_CLEAR = 0.1
"""Share below which it counts as benign; windows between the two train nothing."""


def texts(data: Path, trees: Sequence[Path], locale: Path) -> list[Text]:
    found = [
        *corpus.files(list(trees), 1500, 1), *corpus.translations(locale, 300, 2), *corpus.development_data(data, 3),
        *corpus.data_like(4, 150), *corpus.standard_library(),
    ]  # fmt: skip
    return [*found, *corpus.altered(found, 5, 700)]


def count(found: Sequence[Text]) -> Statistics:
    """Character surprises and known word pairs of the texts of the first part."""
    grams = np.zeros((len(KINDS), 1 << seen.GRAM_BITS), dtype=np.uint8)
    pairs = np.zeros((len(KINDS), 1 << seen.PAIR_BITS), dtype=np.uint8)
    together: list[Array] = []
    for kind, family in enumerate(KINDS):
        own = [text.text for text in found if text.family == family]
        points = seen.code_points("\n".join(own))
        long, contexts = seen.gram_hashes(points, 4), seen.gram_hashes(points, 3)
        short, single = (
            seen.gram_hashes(points, 2),
            np.bincount(seen.gram_hashes(points, 1) >> np.uint32(16), minlength=1 << 16),
        )
        pair_counts = np.bincount(short >> np.uint32(32 - seen.PAIR_BITS), minlength=1 << seen.PAIR_BITS)
        first_counts = single[seen.gram_hashes(points[:-1], 1) >> np.uint32(16)]
        surprise = np.full(1 << seen.PAIR_BITS, 15.0)
        places = short >> np.uint32(32 - seen.PAIR_BITS)
        surprise[places] = -np.log2(pair_counts[places] / np.maximum(first_counts, pair_counts[places]))
        pairs[kind] = np.clip(np.round(surprise / seen.STEP_BITS), 0, 15)
        values, first, counts = np.unique(long, return_index=True, return_counts=True)
        context_values, context_counts = np.unique(contexts, return_counts=True)
        totals = context_counts[np.searchsorted(context_values, contexts[first])]
        lower = pairs[kind, short[first + 2] >> np.uint32(32 - seen.PAIR_BITS)] * seen.STEP_BITS
        bits = -np.log2((counts + 2 * 2.0**-lower) / (totals + 2))
        steps = np.clip(np.round(bits / seen.STEP_BITS), 0, 14).astype(np.uint8) + 1
        often = counts >= 2
        order = np.argsort(counts[often], kind="stable")  # of n-grams that share a slot the most frequent one stays
        cells = (values[often][order] >> np.uint32(32 - seen.GRAM_BITS)).astype(np.int64)
        grams[kind, cells] = ((values[often][order] & np.uint32(15)).astype(np.uint8) << 4) | steps[often][order]
        for text in own:
            tokens = [match.group().lower() for match in seen.TOKEN.finditer(text)]
            if len(tokens) > 1:
                together.append(np.unique(seen.pair_hashes(seen.token_hashes(tokens))))
    counted = np.bincount(np.concatenate(together), minlength=1 << seen.SEEN_BITS)
    return Statistics(grams, pairs, np.packbits(counted >= 2, bitorder="little"))


class Windows:
    """Windows of many texts, described once: `rows`, their `label` (-1: trains nothing) and the index of their text."""

    def __init__(self, items: Sequence[tuple[str, int, int]], statistics: Statistics, most: int | None = None) -> None:
        rng = np.random.default_rng(SEED)
        rows, labels, owners = [], [], []
        for index, (text, start, end) in enumerate(items):
            starts, ends, found = describe(text, statistics, shared_static_embedding())
            overlap = np.clip(np.minimum(ends, end) - np.maximum(starts, start), 0, None) / np.maximum(ends - starts, 1)
            # A suffix shorter than a window fills none: the window that holds it whole counts.
            whole = (overlap * (ends - starts) >= 0.95 * (end - start)) & (end > start) & (overlap > 0.5)
            label = np.where((overlap >= _INSIDE) | whole, 1, np.where(overlap <= _CLEAR, 0, -1))
            if most is not None and len(found) > most:
                kept = rng.choice(len(found), most, replace=False)
                found, label = found[kept], label[kept]
            rows.append(found)
            labels.append(label)
            owners.append(np.full(len(found), index))
        self.rows = np.concatenate(rows)
        self.label, self.owner = np.concatenate(labels), np.concatenate(owners)

    def highest(self, margins: Array, count: int) -> Array:
        """The highest margin of each text."""
        found = np.full(count, -np.inf)
        borders = np.searchsorted(self.owner, np.arange(count + 1))
        for index, (first, last) in enumerate(pairwise(borders)):
            if last > first:
                found[index] = seen.smoothed(margins[first:last]).max()
        return found


def fit(rows: Array, labels: Array, importance: Array) -> HistGradientBoostingClassifier:
    """Trees on windows; `importance` weighs them within their class."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.1, max_iter=160, max_leaf_nodes=24, max_depth=7, min_samples_leaf=60, l2_regularization=2.0,
        random_state=SEED, early_stopping=False,
    )  # fmt: skip
    weights = importance.astype(np.float64)
    for label in (0, 1):
        weights[labels == label] *= len(labels) / 2 / weights[labels == label].sum()
    return model.fit(rows, labels, sample_weight=weights)


def exported(model: HistGradientBoostingClassifier) -> Trees:
    """The trees of scikit-learn as plain arrays."""
    nodes = [predictor.nodes for (predictor,) in model._predictors]
    width = max(map(len, nodes))
    feature = np.zeros((len(nodes), width), np.int16)
    threshold, value = np.zeros((len(nodes), width), np.float32), np.zeros((len(nodes), width), np.float32)
    left = np.tile(np.arange(width, dtype=np.int16), (len(nodes), 1))
    right = left.copy()
    for tree, own in enumerate(nodes):
        size, inner = len(own), own["is_leaf"] == 0
        feature[tree, :size] = np.where(inner, own["feature_idx"], 0)
        threshold[tree, :size] = np.where(inner, own["num_threshold"], np.inf)
        left[tree, :size] = np.where(inner, own["left"], np.arange(size))
        right[tree, :size] = np.where(inner, own["right"], np.arange(size))
        value[tree, :size] = np.where(inner, 0.0, own["value"])
    depth = int(max(own["depth"].max() for own in nodes))
    return Trees(feature, threshold, left, right, value, float(model._baseline_prediction.ravel()[0]), depth, VERSION)


def balanced_threshold(scores: Array, kinds: Sequence[str], share: float) -> float:
    """The score that `share` of the benign texts reach, every kind of text weighing the square root of its number."""
    sizes: dict[str, int] = defaultdict(int)
    for kind in kinds:
        sizes[kind] += 1
    weights = np.array([sizes[kind] ** -0.5 for kind in kinds])
    order = np.argsort(-scores)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(scores[order][np.searchsorted(reached, share)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tree", type=Path, nargs="+", required=True, help="folders of documentation and source code")
    parser.add_argument("--locale", type=Path, default=Path("/usr/share/locale"), help="compiled translations")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--false-positives", type=float, default=0.002)
    parser.add_argument("--attacks", type=int, default=420, help="prompts with a suffix, for each generator")
    options = parser.parse_args()
    found = texts(options.data, options.tree, options.locale)
    parts = {part: [text for text in found if text.part == part] for part in ("statistics", "train", "test")}
    statistics = count(parts["statistics"])
    print({part: len(own) for part, own in parts.items()}, flush=True)
    rng = random.Random(SEED)
    families = {kind: [t.text for t in parts["statistics"] if t.family == kind] for kind in KINDS}
    pieces = [p for p in (packaged_model() / "vocab.txt").read_text("utf-8").split("\n") if p and p[0] != "["]
    prose, code, languages = (rng.sample(families[kind], min(len(families[kind]), 6000)) for kind in KINDS)
    lexicon = suffixes.Lexicon.of(prose, code, languages, pieces)

    def attacks(part: str, each: int) -> tuple[list[tuple[str, int, int]], list[str]]:
        written = [t.text for t in parts[part] if t.kind.startswith(_WRITTEN)]
        hosts = [text[: rng.choice((200, 400, 1000))] for text in written]
        hosts += [t.text[: rng.choice((300, 1000, 2000))] for t in rng.sample(parts[part], 1000)]
        items, names = [], []
        for family, generators in suffixes.FAMILIES.items():
            for generator in generators:
                for _ in range(each * 5 // (4 + len(generators))):
                    items.append(suffixes.attacked(rng.choice(hosts), generator(rng, lexicon), rng))
                    names.append(family)
        return items, names

    train_items, train_names = attacks("train", options.attacks)
    test_items, test_names = attacks("test", 100)
    benign = Windows([(t.text, 0, 0) for t in parts["train"]], statistics, _MOST_WINDOWS)
    positive = Windows(train_items, statistics, 2 * _MOST_WINDOWS)
    test_texts = rng.sample(parts["test"], min(6000, len(parts["test"])))
    test_benign, test_positive = (
        Windows([(t.text, 0, 0) for t in test_texts], statistics),
        Windows(test_items, statistics),
    )
    kinds = [text.kind for text in test_texts]
    names, test_family = np.array(train_names), np.array(test_names)
    print(len(benign.rows), len(positive.rows), (positive.label == 1).sum(), flush=True)

    # What people write to an assistant is what is judged most: it must be harmed least.
    written = np.array([text.kind.startswith(_WRITTEN) for text in parts["train"]])
    importance = np.where(written[benign.owner], _WRITTEN_WEIGHT, 1.0)

    def trained(without: str | None) -> Trees:
        kept = (positive.label >= 0) & (names[positive.owner] != without)
        rows, labels = [benign.rows, positive.rows[kept]], [benign.label, positive.label[kept]]
        weights = [importance, np.ones(kept.sum())]
        return exported(fit(np.concatenate(rows), np.concatenate(labels), np.concatenate(weights)))

    def measured(model: Trees) -> tuple[Array, float, dict[str, float]]:
        """Scores of the benign texts, the threshold, the recall of each family."""
        clean = test_benign.highest(model.margins(test_benign.rows), len(kinds))
        limit = balanced_threshold(clean, kinds, options.false_positives)
        found = test_positive.highest(model.margins(test_positive.rows), len(test_names)) >= limit
        recall = {family: round(float(found[test_family == family].mean()), 3) for family in suffixes.FAMILIES}
        return clean, limit, recall

    model = trained(None)
    clean, limit, recall = measured(model)
    figures: dict[str, Any] = {"recall_of_family": recall}
    families_of = np.array([text.family for text in test_texts])
    for family in KINDS:
        figures[f"false_positives {family}"] = round(float((clean[families_of == family] >= limit).mean()), 5)
    counted = Counter(kinds)
    wrong = Counter(kind for kind, score in zip(kinds, clean, strict=True) if score >= limit)
    figures["false_positives_by_kind"] = {kind: f"{hits} of {counted[kind]}" for kind, hits in sorted(wrong.items())}
    print(json.dumps(figures, indent=1), flush=True)
    final = replace(model, bias=model.bias - limit)
    np.savez_compressed(
        options.out / "gibberish_statistics.npz", grams=statistics.grams, pairs=statistics.pairs, seen=statistics.seen
    )
    np.savez_compressed(
        options.out / "gibberish_trees.npz", feature=final.feature, threshold=final.threshold, left=final.left,
        right=final.right, value=final.value,
    )  # fmt: skip
    write_metadata(options.out, final, figures)
    figures["recall_of_family_not_trained_on"] = {}
    for family in suffixes.FAMILIES:
        _, _, recall = measured(trained(family))
        figures["recall_of_family_not_trained_on"][family] = recall[family]
        print(family, recall[family], flush=True)
    write_metadata(options.out, final, figures)


def write_metadata(folder: Path, final: Trees, figures: dict[str, Any]) -> None:
    """What belongs to the arrays, and how good they are."""
    metadata = {
        "version": VERSION, "bias": final.bias, "depth": final.depth, "features": list(FEATURES), "figures": figures,
    }  # fmt: skip
    (folder / "gibberish_trees.json").write_text(json.dumps(metadata, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
