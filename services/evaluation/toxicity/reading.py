"""How a text is read: disguises undone, cut into pieces and words."""

from __future__ import annotations

import html
import re

from penstock.text.normalise import canonical

from services.evaluation.toxicity.lexicon import Lexicon, Word

__all__ = ["PIECE_WORDS", "Piece", "read"]

PIECE_WORDS = 48
"""Most tokens of a piece: a text that is longer is judged by its worst piece, since an insult must not be diluted."""

Piece = tuple[Word, ...]

# Addresses and the marks of one social network would tell where a text is from, not what it says.
_NOISE = re.compile(r"https?://\S+|www\.\S+|(?<!\w)@\w+:?|\brt\b")
_STRETCHED = re.compile(r"([^\W\d])\1{2,}|([!?.])\2+")
_SPACED = re.compile(r"(?<![\w'])[a-z*@$0-9](?:[ .\-_/|]+[a-z*@$0-9](?![\w'])){3,}")
_TOKEN = re.compile(r"[^\W_]+(?:['*@$!+.#|\-]+[^\W_]+)*\**|[!?\"`.,;:]")
_LONGEST_TEXT = 100_000


def read(text: str, lexicon: Lexicon) -> list[Piece]:
    """Return the pieces of a text as words; one empty piece where it has none.

    Disguises are undone: look-alike letters, digits and signs for letters, letters set apart, doubled or left out, words run
    together. A piece ends with a sentence where it can, and has :data:`PIECE_WORDS` words at most. Only the first 100,000
    characters are read.
    """
    folded = canonical(html.unescape(text[:_LONGEST_TEXT]) if "&" in text else text[:_LONGEST_TEXT])
    folded = _NOISE.sub(" ", folded)
    folded = _STRETCHED.sub(lambda m: m.group(1) * 2 if m.group(1) else m.group(2), folded)
    folded = _SPACED.sub(lambda match: re.sub(r"[ .\-_/|]+", "", match.group()), folded)
    words = [word for token in _TOKEN.findall(lexicon.one_word(folded)) for word in lexicon.words(token)]
    return [tuple(words)] if len(words) <= PIECE_WORDS else _pieces(words)


def _pieces(words: list[Word]) -> list[Piece]:
    """Return pieces that end where a sentence does, if one does in the second half of the words that a piece may have."""
    found: list[Piece] = []
    start = 0
    while len(words) - start > PIECE_WORDS:
        ends = [i for i in range(start + PIECE_WORDS // 3, start + PIECE_WORDS) if words[i].text in ".!?"]
        end = ends[-1] + 1 if ends else start + PIECE_WORDS
        found.append(tuple(words[start:end]))
        start = end
    if start < len(words):
        found.append(tuple(words[start:]))
    return found
