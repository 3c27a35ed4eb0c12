"""Machine-made suffixes, made in many ways: what searches for a text that breaks a model come up with, and what a hand on
the keyboard does.

A generator takes a source of chance and a `Lexicon`, and gives a suffix. `FAMILIES` groups those that are alike: the
classifier is judged on families that it was not trained on.
"""

import random
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What suffixes are put together from: word pieces (BERT's), tokens of a byte-pair encoding trained on text, code and
    languages, words by how often they occur, and texts to cut chunks from.
    """

    pieces: Sequence[str]
    tokens: Sequence[str]
    words: Sequence[str]
    frequent: Sequence[str]
    foreign: Sequence[str]
    followers: Mapping[str, Sequence[str]]
    letters: Mapping[str, str]
    texts: Sequence[str]
    code: Sequence[str]

    @classmethod
    def of(
        cls, prose: Sequence[str], code: Sequence[str], languages: Sequence[str], pieces: Sequence[str]
    ) -> "Lexicon":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=24_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator([*prose, *code, *languages], trainer)
        tokens = [tokenizer.decode([index]) for index in range(tokenizer.get_vocab_size())]
        counts = Counter(word for text in prose for word in _WORD.findall(text))
        words = sorted(word for word, count in counts.items() if count >= 3)
        followers: dict[str, list[str]] = defaultdict(list)
        letters: dict[str, list[str]] = defaultdict(list)
        for text in prose[:4000]:
            found = text.split()
            for left, right in pairwise(found):
                followers[left].append(right)
            for place in range(len(text) - 2):
                letters[text[place : place + 2]].append(text[place + 2])
        foreign = sorted({word for text in languages for word in _WORD.findall(text)})
        return cls(
            pieces, [token for token in tokens if token and "\ufffd" not in token], words,
            random.Random(1).choices(list(counts), weights=list(counts.values()), k=20_000), foreign,
            {key: tuple(value) for key, value in followers.items()},
            {key: "".join(value) for key, value in letters.items()}, prose, code,
        )  # fmt: skip


def _many(rng: random.Random) -> int:
    """Tokens of a suffix, as such searches use."""
    return rng.choice((12, 16, 20, 25, 30, 40))


def _pieces(rng: random.Random, lexicon: Lexicon) -> str:
    joined = " ".join(rng.choices(lexicon.pieces, k=_many(rng))).replace(" ##", "")
    return joined.replace("##", "")


def _pieces_marked(rng: random.Random, lexicon: Lexicon) -> str:
    chosen = [p.removeprefix("##") for p in rng.choices(lexicon.pieces, k=_many(rng))]
    return "".join(
        (piece.title() if rng.random() < 0.2 else piece) + rng.choice((" ", " ", " ", "", *string.punctuation[::4]))
        for piece in chosen
    )


def _tokens(rng: random.Random, lexicon: Lexicon) -> str:
    return "".join(rng.choices(lexicon.tokens, k=int(_many(rng) * 1.3)))


def _tokens_ascii(rng: random.Random, lexicon: Lexicon) -> str:
    found: list[str] = []
    while len(found) < _many(rng):
        token = rng.choice(lexicon.tokens)
        if token.isascii():
            found.append(token)
    return "".join(found).replace("\n", "\\n")


def _tokens_dense(rng: random.Random, lexicon: Lexicon) -> str:
    return "".join(token.strip() for token in rng.choices(lexicon.tokens, k=int(_many(rng) * 1.3)))


def _salad(rng: random.Random, lexicon: Lexicon) -> str:
    return " ".join(rng.choices(lexicon.words, k=_many(rng)))


def _salad_frequent(rng: random.Random, lexicon: Lexicon) -> str:
    return " ".join(
        word + rng.choice(("", "", "", "", ",", ".", "!", " -", "?"))
        for word in rng.choices(lexicon.frequent, k=_many(rng))
    )


def _shuffled(rng: random.Random, lexicon: Lexicon) -> str:
    found = [word for _ in range(2) for word in rng.choice(lexicon.texts).split()[:40]]
    rng.shuffle(found)
    return " ".join(found[: _many(rng)])


def _spliced(rng: random.Random, lexicon: Lexicon) -> str:
    found: list[str] = []
    while len(found) < _many(rng):
        source = rng.choice(lexicon.texts if rng.random() < 0.7 else lexicon.code).split()
        start = rng.randrange(max(1, len(source)))
        found += source[start : start + rng.randint(1, 3)]
    return " ".join(found)


def _walk(rng: random.Random, lexicon: Lexicon) -> str:
    found = [rng.choice(lexicon.frequent)]
    while len(found) < _many(rng):
        follow = lexicon.followers.get(found[-1])
        found.append(rng.choice(follow) if follow and rng.random() < 0.5 else rng.choice(lexicon.words))
    return " ".join(found)


def _code(rng: random.Random, lexicon: Lexicon) -> str:
    found = ""
    while len(found) < 4 * _many(rng):
        source = rng.choice(lexicon.code)
        start = rng.randrange(max(1, len(source)))
        found += re.sub(r"\s+", " ", source[start : start + rng.randint(3, 12)]) + rng.choice(("", "", " "))
    return found


def _scripts(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(("", " ", " ")).join(
        rng.choice(lexicon.foreign if rng.random() < 0.65 else lexicon.words) for _ in range(int(_many(rng) * 0.8))
    )


def _bangs(rng: random.Random, lexicon: Lexicon) -> str:
    share = rng.uniform(0.15, 0.6)
    mark = rng.choice(("! ", "! ", "x ", "!", "@ ", ". "))
    return "".join(rng.choice(lexicon.tokens) if rng.random() < share else mark for _ in range(_many(rng) + 10))


def _printable(rng: random.Random, _: Lexicon) -> str:
    return "".join(
        rng.choices(string.ascii_letters + string.digits + string.punctuation + "   ", k=rng.randint(50, 140))
    )


def _letters(rng: random.Random, _: Lexicon) -> str:
    alphabet = rng.choice((string.ascii_lowercase, string.ascii_letters, string.ascii_lowercase + "      "))
    words = ("".join(rng.choices(alphabet, k=rng.randint(4, 14))) for _ in range(rng.randint(7, 18)))
    return " ".join(words)


_ROWS = ("qwertyuiop", "asdfghjkl;", "zxcvbnm,.", "1234567890")


def _mash(rng: random.Random, _: Lexicon) -> str:
    found: list[str] = []
    while len(found) < rng.randint(40, 120):
        row = rng.choice((_ROWS[0], _ROWS[1], _ROWS[1], _ROWS[1], _ROWS[2]))
        place = rng.randrange(len(row))
        for _step in range(rng.randint(2, 7)):
            place = max(0, min(len(row) - 1, place + rng.choice((-2, -1, 1, 1, 2))))
            found.append(row[place])
        if rng.random() < 0.15:
            found.append(" ")
    return "".join(found)


def _pseudowords(rng: random.Random, lexicon: Lexicon) -> str:
    found = rng.choice(list(lexicon.letters))
    while len(found) < 5 * _many(rng):
        found += (
            rng.choice(lexicon.letters.get(found[-2:], " "))
            if rng.random() < 0.8
            else rng.choice(string.ascii_lowercase + " ")
        )
    return found


_ASKS = (
    "sure here is are steps tutorial answer write reply step begin start output response instead format Sentence paragraph "
    "summary revert inverse formatted bullet list table explain python json first second please using only without Title"
).split()
_JOINTS = (
    "](", "\\n", "**", "==", '"@', ":)", "--", ".\\", "\\!", "={", "//", "<!--", "}}", "()", "?(", ";</", "~", " + ",
    "\u2013", "'']", "|>", ":", "[/", "%%",
)  # fmt: skip


def _searched(rng: random.Random, lexicon: Lexicon) -> str:
    """Words that ask for an answer, joined by signs and scraps of everything, as searches by gradient end up with."""
    found = ""
    for _ in range(_many(rng)):
        draw = rng.random()
        word = (
            rng.choice(_ASKS) if draw < 0.3 else rng.choice(lexicon.words) if draw < 0.6
            else rng.choice(lexicon.tokens) if draw < 0.92 else rng.choice(lexicon.foreign)
        )  # fmt: skip
        word = rng.choice((word, word, word.title(), word.upper() if len(word) < 7 else word))
        found += word + (rng.choice(_JOINTS) if rng.random() < 0.3 else rng.choice((" ", " ", " ", "")))
    return found


Generator = Callable[[random.Random, Lexicon], str]
FAMILIES: Mapping[str, Sequence[Generator]] = {
    "soup": (_pieces, _pieces_marked, _tokens, _tokens_ascii, _tokens_dense),
    "salad": (_salad, _salad_frequent, _shuffled, _spliced, _walk),
    "code": (_code,),
    "scripts": (_scripts,),
    "bangs": (_bangs,),
    "characters": (_printable, _letters, _mash, _pseudowords),
    "searched": (_searched,),
}


def attacked(prompt: str, suffix: str, rng: random.Random) -> tuple[str, int, int]:
    """(text, start, end) of a prompt with its suffix, now and then before it or alone."""
    suffix = suffix.strip()
    draw = rng.random()
    if draw < 0.1:
        return suffix, 0, len(suffix)
    if draw < 0.2:
        return f"{suffix} {prompt}", 0, len(suffix)
    text = prompt + rng.choice((" ", " ", " ", "\n", "")) + suffix
    return text, len(text) - len(suffix), len(text)
