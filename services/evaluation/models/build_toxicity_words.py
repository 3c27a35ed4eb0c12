"""Builds ``toxicity_words.json``: common words, and how pleasant words are.

    PYTHONPATH=shared python -m services.evaluation.models.build_toxicity_words DATA

A token that is a common word is no disguise of another. Words only are taken from the data, nothing else of the texts. How
pleasant a word is comes from the lexicon of vaderSentiment (Hutto and Gilbert 2014, MIT), which must be installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from services.evaluation.toxicity.lexicon import MODELS

_WORD = re.compile(r"(?<![\w@#/.])[a-z]+(?:'[a-z]+)?(?![\w@])")
_MOST = 12_000
_LEAST = 3
_LEAST_IN_TWEETS = 12
"""Tweets are full of disguises and slips: a word must be seen there more often."""
_LEAST_VALENCE = 1.0


def common(data: Path) -> list[str]:
    """Return the common words, the commonest first: those that are written in lower case often enough."""
    toxicity = _lines(data / "toxicity/train.jsonl")
    texts = [row["text"] for row in _lines(data / "injection/train.jsonl") if not row["label"]]
    texts += [row["text"] for row in _lines(data / "topics/train.jsonl")]
    texts += [f"{row['response']} {row['context']}" for row in _lines(data / "groundedness/train.jsonl")]
    texts += [row["text"] for row in _lines(data / "retrieval/corpus.jsonl")]
    texts += [row["text"] for row in toxicity if row["source"] == "wiki"]
    prose, tweets = Counter[str](), Counter[str]()
    for text in texts:
        prose.update(_WORD.findall(text))
    for row in toxicity:
        if row["source"] == "davidson":
            tweets.update(_WORD.findall(row["text"]))
    counted = (prose + tweets).most_common()
    often = [word for word, _ in counted if prose[word] >= _LEAST or tweets[word] >= _LEAST_IN_TWEETS]
    return [word for word in often if len(word) > 1 or word in "ai"][:_MOST]


def valence() -> dict[str, float]:
    """Return how pleasant words are, from -4 to 4; those that are neither are left out."""
    analyser: Any = importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    return {
        word: round(value, 1)
        for word, value in analyser.lexicon.items()
        if re.fullmatch("[a-z]+", word) and abs(value) >= _LEAST_VALENCE
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def main() -> None:
    """Build and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    written: dict[str, Any] = {"common": " ".join(common(data)), "valence": valence()}
    (MODELS / "toxicity_words.json").write_text(json.dumps(written) + "\n", "utf-8")
    print(f"{len(written['common'].split())} words, {len(written['valence'])} with a valence")


if __name__ == "__main__":
    main()
