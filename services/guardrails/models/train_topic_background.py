"""Make the background of banned_topics: `python -m services.guardrails.models.train_topic_background --data DATA`.

Sentences of ordinary prompts, questions and answers, embedded by the static table and rounded to 8 bits. The requests of
the topics' own data are left out: `--evaluate` measures on them how well a topic is found from a few examples, others
being harmless.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from penstock.embedding.static import shared_static_embedding
from penstock.text.normalise import canonical

from services.guardrails.findings import Reference, Rule, Topic
from services.guardrails.scanners.banned_topics import BACKGROUND, BannedTopicsScanner
from services.guardrails.scanners.segments import sentences

SEED = 4
SIZE = 2_000
_NOT_ORDINARY = ("clinc_train", "bipia_ctx_train")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def ordinary(data: Path) -> list[str]:
    """Single sentences, shuffled; the first `SIZE` are the background, the rest is for measuring."""
    texts = [
        row["text"][:1000]
        for row in _lines(data / "injection/train.jsonl")
        if not row["label"] and row["source"] not in _NOT_ORDINARY
    ]
    texts += [row["question"] for row in _lines(data / "retrieval/questions.jsonl")]
    texts += [row["response"] for row in _lines(data / "groundedness/train.jsonl")]
    rng = random.Random(SEED)
    rng.shuffle(texts)
    found = []
    for text in texts:
        places = [place for place in sentences(text) if 12 <= place[1] - place[0] <= 300]
        if places:
            start, end = rng.choice(places)
            found.append(text[start:end])
    return found


def evaluate(scanner: BannedTopicsScanner, data: Path, harmless: list[str], by: str, examples: int) -> dict[str, float]:
    """Mean over topics: AUC, recall and false positives at 0.5, the latter on other requests and on ordinary text."""
    rng = random.Random(SEED)
    groups: dict[str, list[str]] = defaultdict(list)
    for row in _lines(data / "topics/train.jsonl"):
        groups[row[by]].append(row["text"])
    names = sorted(groups) if by == "domain" else rng.sample(sorted(groups), 20)
    figures = defaultdict(list)
    for name in names:
        chosen = rng.sample(groups[name], examples)
        rule = Rule("block", 0.5, True, topics=(Topic(name, tuple(chosen)),))

        def score(texts: list[str], rule: Rule = rule) -> np.ndarray[Any, Any]:
            return np.array([max((s.score for s in scanner.scan(t, rule, Reference())), default=0.0) for t in texts])

        own = score(rng.sample([t for t in groups[name] if t not in chosen], min(300, len(groups[name]) - examples)))
        rest = [t for other, texts in groups.items() if other != name for t in texts]
        others, plain = score(rng.sample(rest, 800)), score(harmless[:800])
        clean = np.sort(np.concatenate([others, plain]))
        figures["auc"].append(float(np.searchsorted(clean, own).mean() / len(clean)))
        figures["recall"].append(float((own >= 0.5).mean()))
        figures["false_positives_other_requests"].append(float((others >= 0.5).mean()))
        figures["false_positives_ordinary"].append(float((plain >= 0.5).mean()))
    return {key: round(float(np.mean(values)), 4) for key, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=BACKGROUND)
    parser.add_argument("--evaluate", action="store_true", help="measure the packaged background, write nothing")
    options = parser.parse_args()
    texts = ordinary(options.data)
    if options.evaluate:
        scanner = BannedTopicsScanner.packaged()
        for by in ("domain", "intent"):
            for examples in (10, 20):
                print(by, examples, evaluate(scanner, options.data, texts[SIZE:], by, examples), flush=True)
        return
    embedding = shared_static_embedding()
    vectors = np.stack([embedding.embed(canonical(text)) for text in texts[:SIZE]])
    codes = np.round(vectors[vectors.any(axis=1)] * 127).astype(np.int8)
    np.savez_compressed(options.out, codes=codes)
    print(f"{len(codes)} sentences, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
