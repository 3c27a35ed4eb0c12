"""Given names, family names, places and common English words: evidence for and against a name.

The lists are made by `services/guardrails/models/build_name_lexicon.py`, which names their sources.
"""

import json
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

LEXICON_PATH = Path(__file__).parents[2] / "models" / "name_lexicon.json"

_UNDECOMPOSED = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe"})


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Folded words (see `fold`). `places` also has names of two and three words, with single spaces."""

    given: frozenset[str]
    family: frozenset[str]
    places: frozenset[str]
    common: frozenset[str]


def fold(word: str) -> str:
    """Lower case without accents: `Jožef` and `jozef` are one name."""
    if word.isascii():
        return word.lower()
    plain = "".join(char for char in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(char))
    return plain.translate(_UNDECOMPOSED)


@lru_cache(maxsize=1)
def load_lexicon() -> Lexicon:
    """The packaged lists, read once a process (15 ms, 8 MB). Raises FileNotFoundError where the file is missing."""
    sections = json.loads(LEXICON_PATH.read_text("ascii"))
    return Lexicon(**{name: frozenset(words.split("|")) for name, words in sections.items()})
