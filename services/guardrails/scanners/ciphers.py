"""Readings of a canonical text whose letters were moved, replaced, set apart or run together.

What only a change of spelling hides (letters set apart, leetspeak, stretched letters, words cut in two or run together,
strings that are put together) is undone wherever it stands. What replaces every letter (Caesar shifts such as ROT13,
Atbash, text or words backwards, Pig Latin) is tried on the stretch that is made of unknown words, and taken where words
known to the lexicon come out. All linear in the length of the text and capped.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property

MAX_STRETCH = 4000
"""Characters of an unreadable stretch that are deciphered."""
_SAMPLE = 160
"""Characters of it on which the ciphers are tried."""

_LEET = str.maketrans("013457@$!|8", "oieastasilb")
_LEET_WORD = re.compile(r"(?<![\w@$!|])(?=[\w@$!|]*[a-z])(?=[\w@$!|]*[013457@$!|8])[\w@$!|]{3,32}")
# A letter is never also a separator (no underscore on the left): two ways to split a run would make this pattern
# exponential.
_SPACED = re.compile(r"(?<!\w)(?:[^\W_][ \t.\-_*·•|/\\,~+]{1,3}){4,}[^\W_](?!\w)")
_SPACED_GAP = re.compile(r"[ \t.\-_*·•|/\\,~+]+")
_STRETCHED = re.compile(r"([a-z])\1{2,}")
# Anchored at the word's beginning and bounded: from every letter of a long word it would be quadratic.
_CUT = re.compile(r"(?<![a-z])[a-z]{1,24}(?:[.\-_*~|+'][a-z]{1,24})+")
_CUT_GAP = re.compile(r"[.\-_*~|+']")
_PAIR = re.compile(r"[a-z]+")
_QUOTES_JOINED = re.compile(r"[\"'`”’] {0,3}(?:\+|\.|&|\|\|) {0,3}[\"'`“‘]")
_ASSIGNED = re.compile(r"\b([a-z_]\w{0,15})\s{0,3}(?::?=|:|\bis\b)\s{0,3}[\"'`“‘]([^\"'`”’\n]{1,300})[\"'`”’]")
_SUM = re.compile(r"\b[a-z_]\w{0,15}(?:\s{0,3}(?:\+|&|\.\.)\s{0,3}[a-z_]\w{0,15})+")
_NAME = re.compile(r"[a-z_]\w*")
_LONG = re.compile(r"[a-z]{14,200}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_SHIFTS = [str.maketrans(_ALPHABET, _ALPHABET[n:] + _ALPHABET[:n]) for n in range(1, 26)]
_ATBASH = str.maketrans(_ALPHABET, _ALPHABET[::-1])


class Lexicon:
    """Words of a language, from a word-piece vocabulary; pieces of words are left out."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = frozenset(
            word for word in words if word.isascii() and word.isalpha() and (len(word) > 2 or word in _SHORT)
        )

    def __contains__(self, word: str) -> bool:
        return word in self._words

    @cached_property
    def longest(self) -> int:
        return min(16, max(map(len, self._words), default=0))

    def coverage(self, words: Sequence[str]) -> float:
        """Share of the letters that stand in known words."""
        letters = sum(map(len, words))
        return sum(len(word) for word in words if word in self._words) / letters if letters else 0.0


_SHORT = frozenset("a i of in to he is as on it by at an be my or me up no we so if do us go am oh".split())


def rewritten(folded: str, lexicon: Lexicon) -> Iterator[tuple[str, str]]:
    """(reading, trick) of a canonical text, each reading undoing one trick and those before it."""
    base = folded
    joined = join_spaced_letters(base)
    if joined is not None:
        yield joined, "spaced-letters"
        base = joined
    plain = undo_leetspeak(base)
    if plain is not None:
        yield plain, "leetspeak"
        base = plain
    assembled = assemble(base)
    if assembled is not None:
        yield assembled, "concatenation"
    mended = mend(base, lexicon)
    if mended is not None:
        yield mended, "split-words"
        base = mended
    deciphered = decipher(base, lexicon)
    if deciphered is not None:
        yield deciphered


def join_spaced_letters(base: str) -> str | None:
    """`i g n o r e  t h i s` read as words, or None where no letters are set apart. Wider gaps separate the words."""

    def join(match: re.Match[str]) -> str:
        gaps = _SPACED_GAP.findall(match.group())
        narrow = min(map(len, gaps))
        return _SPACED_GAP.sub(lambda gap: "" if len(gap.group()) == narrow else " ", match.group())

    joined, count = _SPACED.subn(join, base)
    return joined if count else None


def undo_leetspeak(base: str) -> str | None:
    """Letters restored in words that mix letters with the digits and signs used for them, or None where there is none."""
    plain, count = _LEET_WORD.subn(lambda match: match.group().translate(_LEET), base)
    return plain if count >= 2 and plain != base else None


def assemble(base: str) -> str | None:
    """What strings that are joined spell: `"ig" + "nore"`, or names set to strings and then added; None without any."""
    literal, count = _QUOTES_JOINED.subn("", base)
    values = dict(_ASSIGNED.findall(base))
    if len(values) < 2:
        return literal if count else None
    sums = [
        "".join(values.get(name, "") for name in _NAME.findall(match.group()))
        for match in _SUM.finditer(base)
        if sum(name in values for name in _NAME.findall(match.group())) >= 2
    ]
    # Names that are set and never added are put together by the reader ("combine a, b and c").
    return "\n".join([*sums, " ".join(values.values())])


def mend(base: str, lexicon: Lexicon) -> str | None:
    """Words that were stretched, cut in two or run together, as the lexicon knows them; None where nothing changes."""
    text = _STRETCHED.sub(lambda m: m.group(1), base)
    text = _CUT.sub(lambda m: _uncut(m.group(), lexicon), text)
    text = _rejoined(text, lexicon)
    text = _LONG.sub(lambda m: m.group() if m.group() in lexicon else segmented(m.group(), lexicon), text)
    return text if text != base else None


def _uncut(word: str, lexicon: Lexicon) -> str:
    joined = _CUT_GAP.sub("", word)
    return joined if joined in lexicon and not all(piece in lexicon for piece in _CUT_GAP.split(word)) else word


def _rejoined(text: str, lexicon: Lexicon) -> str:
    """`ig nore`: two neighbours of which at least one is no word, and which are one together."""
    kept: list[str] = []
    position = 0
    previous: re.Match[str] | None = None
    for match in _PAIR.finditer(text):
        if (
            previous is not None
            and match.start() - previous.end() == 1
            and text[previous.end()] == " "
            and not (previous.group() in lexicon and match.group() in lexicon)
            and len(previous.group()) + len(match.group()) >= 5
            and previous.group() + match.group() in lexicon
        ):
            kept.append(text[position : previous.end()])
            position = match.start()
            previous = None
        else:
            previous = match
    return "".join([*kept, text[position:]])


def segmented(run: str, lexicon: Lexicon) -> str:
    """`ignoreallrules` as known words, the fewest that spell it, or unchanged. Linear: words have at most 16 letters."""
    best: list[tuple[int, int] | None] = [(0, 0)] + [None] * len(run)
    for end in range(1, len(run) + 1):
        for start in range(max(0, end - lexicon.longest), end):
            before = best[start]
            if before is not None and run[start:end] in lexicon:
                candidate = (before[0] + 1, start)
                current = best[end]
                if current is None or candidate[0] < current[0]:
                    best[end] = candidate
    last = best[-1]
    if last is None or last[0] < 4 or last[0] * 2.5 > len(run):
        # Three words in one are an identifier.
        return run
    words, end = [], len(run)
    while end:
        step = best[end]
        assert step is not None
        words.append(run[step[1] : end])
        end = step[1]
    return " ".join(reversed(words))


def decipher(base: str, lexicon: Lexicon) -> tuple[str, str] | None:
    """(reading, trick) of the stretch of unknown words, or None where there is none or no cipher makes words of it."""
    stretch = _unreadable(base, lexicon)
    if stretch is None:
        return None
    start, end = stretch
    run = base[start:end]
    sample = run[:_SAMPLE]
    best, trick, reading = 0.65, "", ""
    for table, name in [(_SHIFTS[12], "rot13"), (_ATBASH, "atbash")] + [(shift, "caesar") for shift in _SHIFTS]:
        known = lexicon.coverage(_PAIR.findall(sample.translate(table)))
        if known > best:
            best, trick, reading = known, name, run.translate(table)
    for text, name in (
        (run[::-1], "reversed"),
        (_words_reversed(run), "reversed-words"),
        (_from_pig_latin(run, lexicon), "pig-latin"),
    ):
        known = lexicon.coverage(_PAIR.findall(text[:_SAMPLE]))
        if known > best:
            best, trick, reading = known, name, text
    if not trick:
        return None
    return base[max(0, start - 200) : start] + reading + base[end : end + 200], trick


def _unreadable(base: str, lexicon: Lexicon) -> tuple[int, int] | None:
    """The stretch with the most letters in unknown words, less those in known ones (Kadane's maximum sub-array)."""
    best, sum_here, begin, found = 14, 0, 0, None
    count = 0
    for match in _PAIR.finditer(base):
        size = match.end() - match.start()
        if match.group() in lexicon:
            # Short words come out of a cipher by chance.
            sum_here -= size if size > 3 else 1
        else:
            if sum_here <= 0:
                sum_here, begin, count = 0, match.start(), 0
            sum_here += size
            count += 1
            if sum_here > best and count >= 3:
                best, found = sum_here, (begin, match.end())
    if found is None:
        return None
    return found[0], min(found[1], found[0] + MAX_STRETCH)


def _words_reversed(run: str) -> str:
    return _PAIR.sub(lambda match: match.group()[::-1], run)


def _from_pig_latin(run: str, lexicon: Lexicon) -> str:
    def restored(word: str) -> str:
        if not word.endswith("ay"):
            return word
        stem = word[:-2]
        candidates = [stem[:-1]] if stem[-1:] in ("w", "y") else []
        candidates += [stem[-count:] + stem[:-count] for count in (1, 2, 3) if count < len(stem)]
        return next((candidate for candidate in candidates if candidate in lexicon), word)

    return _PAIR.sub(lambda match: restored(match.group()), run)
