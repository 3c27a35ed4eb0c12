"""A small language for writing varied texts by hand: slots, alternatives, shared domains.

A grammar file is read line by line. `# ...` is a comment. `@slot NAME` starts a list of fillers. `@rows KEY=VALUE ...`
starts a list of templates. In templates and fillers `{a|b|}` chooses, `$name` draws a filler, `$name.transform`
rewrites it, `$name1` draws once a text and repeats (any digit), `a(n)` becomes the right article, `\\n` is a line break;
a backslash makes `{`, `}`, `|`, `$` and `.` plain. With a domain, `$deed` first means `@slot DOMAIN.deed`: what one text
says of the deed, the expert and the artefact fits together; after it `@slot KIND.common.deed`, for a domain `KIND.x`.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.guardrails.models.corpus.transforms import TRANSFORMS

_TOKEN = re.compile(r"\\[nt{}|$.]|[{}|]|\$[a-z_]+[0-9]?(?:\.[a-z_0-9]+)*|[^\\{}|$]+|.", re.DOTALL)
_SLOT = re.compile(r"\$([a-z_]+)([0-9]?)((?:\.[a-z_0-9]+)*)")
_ARTICLE = re.compile(r"\b([Aa])\(n\) (\W*)(\w?\w?\w?)")
_CONSONANT_SOUND = ("uni", "use", "usu", "eur", "one", "onc", "u")
_ESCAPES = {"\\n": "\n", "\\t": "\t"}


class GrammarError(ValueError):
    """A grammar file cannot be read; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Section:
    """Templates that share their options, as `@rows` gives them."""

    options: dict[str, str]
    templates: list[str]


@dataclass(slots=True)
class Grammar:
    slots: dict[str, list[str]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)

    def domains(self, kind: str) -> list[str]:
        """Names of the domains of a kind, as `harm.fraud`."""
        names = {name.rpartition(".")[0] for name in self.slots if name.startswith(f"{kind}.")}
        return sorted(names - {f"{kind}.common"})


def load(paths: Iterable[Path]) -> Grammar:
    """Read grammar files; slots of one name are joined. Raises GrammarError on a line that belongs nowhere."""
    grammar = Grammar()
    for path in paths:
        target: list[str] | None = None
        for number, raw in enumerate(path.read_text("utf-8").split("\n"), 1):
            line = raw.strip()
            if not line or line.startswith("# "):
                continue
            if line.startswith("@slot "):
                target = grammar.slots.setdefault(line.split()[1], [])
            elif line.startswith("@rows "):
                section = Section(dict(part.split("=", 1) for part in line.split()[1:]), [])
                grammar.sections.append(section)
                target = section.templates
            elif target is None:
                raise GrammarError(f"{path.name}:{number}: text before any @slot or @rows; put a header above it")
            else:
                target.append(line)
    return grammar


class Writer:
    """Expands templates with one random generator; `domain` narrows the slots to one subject."""

    def __init__(self, slots: dict[str, list[str]], rng: random.Random, domain: str = "") -> None:
        self.slots, self.rng, self.domain = slots, rng, domain
        self.bound: dict[str, str] = {}

    def write(self, template: str) -> str:
        text = self._expand(template)
        return _ARTICLE.sub(_article, text)

    def _expand(self, template: str) -> str:
        tokens = list(_TOKEN.findall(template))
        text, end = self._sequence(tokens, 0, template)
        if end < len(tokens):
            raise GrammarError(f"a brace closes that was never opened: {template[:80]}; write \\}} for the character")
        return text

    def _sequence(self, tokens: list[str], at: int, template: str) -> tuple[str, int]:
        out = []
        while at < len(tokens) and tokens[at] != "}":
            token = tokens[at]
            if token == "{":
                branch, at = self._choice(tokens, at + 1, template)
                out.append(branch)
                continue
            if token.startswith("$") and len(token) > 1:
                out.append(self._slot(token))
            elif token.startswith("\\") and len(token) > 1:
                out.append(_ESCAPES.get(token, token[1:]))
            else:
                out.append(token)
            at += 1
        return "".join(out), at

    def _choice(self, tokens: list[str], at: int, template: str) -> tuple[str, int]:
        branches, depth, start = [], 0, at
        while True:
            if at >= len(tokens):
                raise GrammarError(f"a brace is not closed: {template[:80]}; add }} or write \\{{")
            token = tokens[at]
            if token in ("|", "}") and not depth:
                branches.append(tokens[start:at])
                start = at + 1
                if token == "}":
                    break
            depth += (token == "{") - (token == "}")
            at += 1
        chosen = self.rng.choice(branches)
        return self._sequence(chosen, 0, template)[0], at + 1

    def _slot(self, token: str) -> str:
        match = _SLOT.fullmatch(token)
        if match is None:
            raise GrammarError(f"{token} is no slot; write \\$ for the character")
        name, digit, transforms = match.groups()
        key = name + digit
        if not digit or key not in self.bound:
            common = f"{self.domain.partition('.')[0]}.common"
            places = (f"{self.domain}.{name}", f"{common}.{name}", name)
            fillers = next((self.slots[place] for place in places if place in self.slots), None)
            if not fillers:
                raise GrammarError(f"slot {name} has no fillers (domain {self.domain or 'none'}); add @slot {name}")
            value = self._expand(self.rng.choice(fillers))
            taken = {v for k, v in self.bound.items() if k[:-1] == name}
            while digit and value in taken and len(fillers) > len(taken):
                value = self._expand(self.rng.choice(fillers))
            if digit:
                self.bound[key] = value
        else:
            value = self.bound[key]
        for transform in transforms.split(".")[1:]:
            value = TRANSFORMS[transform](value, self.rng)
        return value


def _article(match: re.Match[str]) -> str:
    letter, between, following = match.groups()
    vowel = following[:1].lower() in tuple("aeiou") and not following.lower().startswith(_CONSONANT_SOUND[:-1])
    return f"{letter}{'n' if vowel else ''} {between}{following}"


def words(text: str) -> list[str]:
    """Lower-cased words; Chinese characters and kana count one by one, as those scripts set no spaces."""
    return re.findall(r"[぀-ヿ一-鿿]|[^\W_]+", text.lower())


def ngrams(text: str, size: int) -> Iterator[str]:
    tokens = words(text)
    for start in range(len(tokens) - size + 1):
        yield " ".join(tokens[start : start + size])
