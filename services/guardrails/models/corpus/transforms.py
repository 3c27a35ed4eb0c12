"""Rewritings of a phrase that the grammars name after a slot, as in `$ask.base64`: inflection, encodings, disguises."""

import base64
import codecs
import random
import re
import unicodedata
from collections.abc import Callable

_DOUBLING = frozenset(
    "get rig plan run cut set hit stab swap tap scam spam strip skim grab rob hop put plot slip stop trap knit chop stir "
    "pot rip ship shop win begin forget prep plug flip trim pin bug dig sit map let wrap drum hum jog log tag nag "
    "kidnap cap format snap grip stun whip swim blot mop".split()
)
_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_HOMOGLYPHS = str.maketrans("aeopcxiAEOPCXHKMT", "аеорсхіАЕОРСХНКМТ")
_MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        (
            ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
        ).split(),
        strict=True,
    )
)
_EMOJI = {
    "write": "✍️", "money": "💰", "bank": "🏦", "phone": "📱", "house": "🏠", "car": "🚗", "bomb": "💣", "gun": "🔫",
    "knife": "🔪", "key": "🔑", "lock": "🔒", "password": "🔑", "computer": "💻", "people": "👥", "fire": "🔥",
    "poison": "☠️", "drug": "💊", "tell": "🗣️", "show": "👀", "love": "❤️", "book": "📖", "cake": "🎂", "dog": "🐶",
    "tree": "🌳", "water": "💧", "sun": "☀️", "time": "⏰", "you": "🫵",
}  # fmt: skip


def gerund(phrase: str) -> str:
    """`make a cake` to `making a cake`: the first word is an English infinitive."""
    verb, _, rest = phrase.partition(" ")
    if verb.endswith("ie"):
        verb = verb[:-2] + "ying"
    elif verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")) and verb != "be":
        verb = verb[:-1] + "ing"
    elif verb in _DOUBLING:
        verb += verb[-1] + "ing"
    else:
        verb += "ing"
    return f"{verb} {rest}".strip()


def _typos(text: str, rng: random.Random, share: float) -> str:
    """Swaps, drops or doubles a letter inside about `share` of the words of four letters and more."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if len(word) >= 4 and word.isalpha() and rng.random() < share:
            at = rng.randrange(1, len(word) - 1)
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            words[index] = rng.choice([swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]])
    return " ".join(words)


def _pieces(text: str, rng: random.Random) -> str:
    """Assignments of consecutive parts, then their sum: `a="..."; b="..."; a+b`."""
    words = text.split(" ")
    size = max(1, round(len(words) / rng.choice([2, 3, 4])))
    parts = [" ".join(words[start : start + size]) for start in range(0, len(words), size)]
    names = rng.choice([["a", "b", "c", "d", "e", "f", "g"], ["x1", "x2", "x3", "x4", "x5", "x6", "x7"],
                        ["one", "two", "three", "four", "five", "six", "seven"],
                        ["P", "Q", "R", "S", "T", "U", "V"]])  # fmt: skip
    quote, joint = rng.choice(['"', "'", "`"]), rng.choice(["; ", "\n", ", "])
    assign = rng.choice([" = ", ": ", "=", " := "])
    lines = [f"{name}{assign}{quote}{part}{quote}" for name, part in zip(names, parts, strict=False)]
    return joint.join(lines) + joint + "".join(rng.choice(["z = ", "Z: "])) + " + ".join(names[: len(lines)])


def _masked(text: str, rng: random.Random) -> str:
    """The longest words lose their inner letters to a filler."""
    filler = rng.choice("*_#-.")
    longest = sorted(set(re.findall(r"[a-z]{5,}", text)), key=lambda word: (len(word), word))[-3:]
    for word in longest:
        text = text.replace(word, word[0] + filler * (len(word) - 2) + word[-1])
    return text


def _spaced(text: str, rng: random.Random) -> str:
    gap = rng.choice([" ", ".", "-", "_", "·"])
    return rng.choice(["  ", " / ", "   "]).join(gap.join(word) for word in text.split(" "))


def _emoji(text: str, rng: random.Random) -> str:
    words = [_EMOJI.get(word.lower().strip(".,"), word) for word in text.split(" ")]
    return " ".join(word + rng.choice(["", "", " ✨", " 🙏", " 👉", " 🤖"]) for word in words)


def _camel(text: str, rng: random.Random) -> str:
    words = re.findall(r"\w+", text)
    return rng.choice(["".join(w.capitalize() for w in words), "_".join(words).lower(), "-".join(words).upper()])


def _acrostic(text: str, rng: random.Random) -> str:
    """Lines whose first letters spell the first twelve letters of the phrase."""
    fillers: dict[str, list[str]] = {c: [] for c in "abcdefghijklmnopqrstuvwxyz"}
    for word in (
        "apples autumn always bells bread before clouds candles close dawn doors deep every evening embers fields far "
        "fog green gates grow hills horses hear islands in ice jars jolly keep kettles knots long lanterns leaves "
        "mornings moss many never nights north open owls over paper ponds pale quiet quick rivers roofs rain slow "
        "stones salt trees towards tall under upon up valleys violins wide water winter xylophones yellow years zigzag"
    ).split():
        fillers[word[0]].append(word)
    letters = [c for c in text.lower() if c in fillers][:12]
    tails = ["wait at the window", "bring the old song", "over the hill", "that nobody counts", "in a blue coat",
             "until the bell", "for the harbour", "with a patient face", "as we walk home", "under the lamp"]  # fmt: skip
    return "\n".join(f"{rng.choice(fillers[c]).capitalize()} {rng.choice(tails)}" for c in letters)


def _caesar(text: str, shift: int) -> str:
    shifted = [chr((ord(c) - 97 + shift) % 26 + 97) if "a" <= c <= "z" else c for c in text.lower()]
    return "".join(shifted)


TRANSFORMS: dict[str, Callable[[str, random.Random], str]] = {
    "ing": lambda text, _: gerund(text),
    "cap": lambda text, _: text[:1].upper() + text[1:],
    "slug": lambda text, _: re.sub(r"[^a-z]+", "", unicodedata.normalize("NFKD", text.lower())),
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: text.lower(),
    "title": lambda text, _: text.title(),
    "base64": lambda text, _: base64.b64encode(text.encode()).decode(),
    "base32": lambda text, _: base64.b32encode(text.encode()).decode(),
    "hex": lambda text, rng: text.encode().hex(rng.choice([" ", ":", "-"])) if rng.random() < 0.5 else text.encode().hex(),
    "rot13": lambda text, _: codecs.encode(text, "rot13"),
    "caesar": lambda text, _: _caesar(text, 3),
    "binary": lambda text, _: " ".join(f"{byte:08b}" for byte in text.encode()[:40]),
    "codes": lambda text, rng: rng.choice([" ", ", "]).join(str(ord(c)) for c in text),
    "url": lambda text, _: "".join(f"%{byte:02X}" for byte in text.encode()),
    "unicode": lambda text, _: "".join(f"\\u{ord(c):04x}" for c in text),
    "entities": lambda text, _: "".join(f"&#{ord(c)};" for c in text),
    "morse": lambda text, _: " / ".join(" ".join(_MORSE.get(c, c) for c in w) for w in text.lower().split(" ")),
    "reversed": lambda text, _: text[::-1],
    "words_reversed": lambda text, _: " ".join(reversed(text.split(" "))),
    "leet": lambda text, _: text.translate(_LEET),
    "homoglyph": lambda text, rng: "".join(c.translate(_HOMOGLYPHS) if rng.random() < 0.6 else c for c in text),
    "zero_width": lambda text, rng: rng.choice(["\u200b", "\u200c", "\u2060"]).join(text),
    "fullwidth": lambda text, _: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "bold": lambda text, _: "".join(chr(0x1D41A + ord(c) - 97) if "a" <= c <= "z" else c for c in text.lower()),
    "vowelless": lambda text, _: re.sub(r"(?<=\w)[aeiou]", "", text),
    "pig": lambda text, _: " ".join(w[1:] + w[0] + "ay" if w[:1].isalpha() else w for w in text.split(" ")),
    "alternating": lambda text, _: "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(text)),
    "typos": lambda text, rng: _typos(text, rng, 0.55),
    "some_typos": lambda text, rng: _typos(text, rng, 0.12),
    "spaced": _spaced,
    "pieces": _pieces,
    "masked": _masked,
    "emoji": _emoji,
    "camel": _camel,
    "acrostic": _acrostic,
    "quoted_words": lambda text, _: ", ".join(f'"{word}"' for word in text.split(" ")),
    "numbered": lambda text, _: "\n".join(f"{i}. {word}" for i, word in enumerate(text.split(" "), 1)),
    "lines": lambda text, _: "\n".join(text.split(" ")),
}  # fmt: skip
"""Name in a grammar to (phrase, random generator) -> rewritten phrase."""
