"""Sentences written for this project that teach the toxicity classifier what its data do not hold.

``models/toxicity_phrases.json`` holds families of templates, abusive and harmless; a family is one way of speaking,
e.g. hatred denied, a slur quoted, a threat. Slots in braces are filled at random. Some of it is offensive by nature: it
is there to be recognised.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.evaluation.toxicity.lexicon import MODELS

__all__ = ["Phrase", "draw", "families"]

_SLOT = re.compile(r"\{(\w+)\}")
_OPENINGS = (
    "",
    "",
    "",
    "",
    "",
    "lol ",
    "honestly, ",
    "well, ",
    "listen, ",
    "sorry but ",
    "look, ",
    "hey ",
    "ok ",
    "yo ",
)
_CLOSINGS = ("", "", "", ".", ".", "!", "!!", " lol", "...", " tbh", ". period", ", believe me")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One sentence.

    Attributes:
        text: as somebody might write it.
        toxic: whether it is abuse.
        hateful: whether it is abuse of a group.
        family: of its template.
        template: the template.
        categories: of abuse that it certainly is.
    """

    text: str
    toxic: bool
    hateful: bool
    family: str
    template: str
    categories: frozenset[str]


def families(folder: Path = MODELS) -> dict[str, bool]:
    """Return the names of the families, and whether each is abuse."""
    written = json.loads((folder / "toxicity_phrases.json").read_text("utf-8"))
    return dict.fromkeys(written["abuse"], True) | dict.fromkeys(written["harmless"], False)


def draw(each: int, seed: int, folder: Path = MODELS) -> Iterator[Phrase]:
    """Yield ``each`` sentences of every template with slots, and two of every one without."""
    rng = random.Random(seed)
    written = json.loads((folder / "toxicity_phrases.json").read_text("utf-8"))
    slots = {name: values.split(" | ") for name, values in written["slots"].items()}
    abuse = {name: (family["say"].split(" | "), family["is"].split()) for name, family in written["abuse"].items()}
    all_abuse = [template for templates, _ in abuse.values() for template in templates]
    for name, (templates, categories) in abuse.items():
        for template in templates:
            for _ in range(each if "{" in template else 2):
                text = _dressed(_filled(template, slots, all_abuse, rng), rng)
                yield Phrase(text, True, "identity_attack" in categories, name, template, frozenset(categories))
    for name, said in written["harmless"].items():
        for template in said.split(" | "):
            for _ in range(each if "{" in template else 2):
                text = _dressed(_filled(template, slots, all_abuse, rng), rng)
                yield Phrase(text, False, False, name, template, frozenset())


def _filled(template: str, slots: dict[str, list[str]], abuse: list[str], rng: random.Random) -> str:
    def fill(match: re.Match[str]) -> str:
        if match.group(1) == "X":
            return _filled(rng.choice(abuse), slots, abuse, rng)
        return rng.choice(slots[match.group(1)])

    return _SLOT.sub(fill, template)


def _dressed(text: str, rng: random.Random) -> str:
    text = rng.choice(_OPENINGS) + text
    if text[-1].isalnum():
        text += rng.choice(_CLOSINGS)
    case = rng.random()
    return text[0].upper() + text[1:] if case < 0.5 else text.upper() if case > 0.97 else text
