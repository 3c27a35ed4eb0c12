"""What the toxicity classifier is trained on: the development data, and sentences written for this project."""

from __future__ import annotations

import csv
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.evaluation.toxicity.heads import CATEGORIES
from services.evaluation.toxicity.lexicon import CLASSES, Lexicon
from services.evaluation.toxicity.phrases import draw
from services.evaluation.toxicity.reading import Piece, read

__all__ = ["FOLDS", "Row", "rows"]

SEED = 12
FOLDS = 3
_EACH = 12
_NAMED = 1_500
"""Of the 72,000 phrases of one identity template; the other templates are taken whole."""
_LONGEST_PROMPT = 800
_MOST_PIECES = {"prompts": 2, "tweets": 1}
_OBSCENE = (
    "fuck fucking fucked fucker fuckin motherfucker motherfuckers shit shitty bullshit bitch bitches ass asshole assholes "
    "dick cock cunt pussy tits whore slut cum piss hoe hoes"
).split()


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of a text.

    Attributes:
        piece: its words.
        source: where the text is from; ``own <family>`` where it was written for this project.
        toxic: label of the text.
        text: number of the text; ``pieces`` is how many rows it has.
        fold: of the text: at random, but a family of own sentences and a source of prompts stand in one fold.
        categories: label by category where it is known.
    """

    piece: Piece
    source: str
    toxic: bool
    text: int
    pieces: int
    fold: int
    categories: dict[str, bool]


def rows(data: Path, lexicon: Lexicon) -> Iterator[Row]:
    """Yield all rows.

    Raises:
        FileNotFoundError: ``data`` is not the folder of the development data.
    """
    for number, (text, source, toxic, group, certain) in enumerate(_texts(data)):
        pieces = read(text, lexicon)[: _MOST_PIECES.get(source, 12)]
        fold = zlib.crc32(f"{SEED} {group}".encode()) % FOLDS
        for piece in pieces:
            yield Row(piece, source, toxic, number, len(pieces), fold, certain or _guessed(piece, source, toxic))


def _texts(data: Path) -> Iterator[tuple[str, str, bool, str, dict[str, bool]]]:
    """Yield text, source, label, what stands in one fold with it, and the categories that are certain."""
    for row in _lines(data / "toxicity/train.jsonl"):
        tweet = row["source"] == "davidson"
        certain = {"identity_attack": row["hate"] == 1} if tweet and row["label"] else {}
        yield row["text"], "tweets" if tweet else "talk pages", row["label"] == 1, row["text"], certain
    with (data / "toxicity/identity_templates.csv").open(newline="", encoding="utf-8") as file:
        identities = list(csv.DictReader(file))
    named = [row for row in identities if row["template"] == "name_adj"]
    chosen = [row for row in identities if row["template"] != "name_adj"]
    for row in chosen + random.Random(SEED).sample(named, _NAMED):
        toxic = row["toxicity"] == "toxic"
        group = row["template"] != "you_occupation"
        certain = {"identity_attack": toxic and group, "insult": toxic, "threat": False, "obscenity": False}
        yield row["phrase"], "identities", toxic, row["phrase"], certain if toxic else {}
    for row in _lines(data / "injection/train.jsonl"):
        if not row["label"]:
            yield row["text"][:_LONGEST_PROMPT], "prompts", False, row["source"], {}
    for row in _lines(data / "groundedness/train.jsonl"):
        yield row["response"], "answers", False, row["response"], {}
    for phrase in draw(_EACH, SEED):
        certain = {name: name in phrase.categories for name in CATEGORIES}
        if phrase.toxic:
            # Any abuse may swear.
            certain["obscenity"] |= bool(set(phrase.text.lower().split()).intersection(_OBSCENE))
        yield phrase.text, f"own {phrase.family}", phrase.toxic, phrase.family, certain


def _guessed(piece: Piece, source: str, toxic: bool) -> dict[str, bool]:
    """Return the categories that words tell: weak labels, for lack of better ones."""
    if not toxic:
        return dict.fromkeys(CATEGORIES, False)
    words = {word.surface for word in piece}
    codes = {CLASSES[word.code] for word in piece}
    found = {"obscenity": bool(words.intersection(_OBSCENE))}
    if source == "talk pages" and "second" in codes and codes & {"insult", "insulting", "slur"}:
        found |= {"insult": True, "harassment": True}
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: --data names the folder of toxicity/, injection/ and groundedness/"
        )
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
