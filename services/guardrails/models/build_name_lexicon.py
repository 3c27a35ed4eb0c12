"""Make `name_lexicon.json`: given names, family names, places and common English words, as evidence for and against a
name.

    pip install faker
    python -m services.guardrails.models.build_name_lexicon --data DATA

Names and places are those that the MIT-licensed package Faker carries for its locales in Latin script, which takes them
from census and registry lists. Common words are those that the development data (`DATA`, see README.md) writes in lower
case more often than not; it is a list of words and carries nothing else of the texts.
"""

import argparse
import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.guardrails.scanners.pii.lexicon import LEXICON_PATH, fold

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_LATIN = re.compile(r"[a-z]{2,}")
_SOURCES = (
    ("injection/train.jsonl", ("text",)),
    ("toxicity/train.jsonl", ("text",)),
    ("retrieval/corpus.jsonl", ("text",)),
    ("groundedness/train.jsonl", ("context", "response")),
    ("topics/train.jsonl", ("text",)),
)
MIN_LOWER = 2
"""Times that a word must stand in lower case before it counts as common: once may be a slip."""


def faker_values(provider: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """Every value that Faker's locales of a provider list under attributes with these prefixes."""
    package = importlib.import_module(f"faker.providers.{provider}")
    for locale in sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg):
        lists = importlib.import_module(f"faker.providers.{provider}.{locale}").Provider
        for attribute in sorted(vars(lists)):
            values = getattr(lists, attribute)
            if attribute.startswith(prefixes) and isinstance(values, list | tuple | dict):
                for value in values:
                    text = value[0] if isinstance(value, tuple) else value
                    if isinstance(text, str):
                        yield text


def latin_words(values: Iterable[str]) -> set[str]:
    """The words of the values, folded, without those that another script writes."""
    words = (fold(word) for value in values for word in re.split(r"[\s'’.-]+", value))
    return {word for word in words if _LATIN.fullmatch(word)}


def places() -> set[str]:
    """Folded names of countries, capitals, and cities, of up to three words."""
    countries = importlib.import_module("faker.providers.date_time").Provider.countries
    names = {name for country in countries for name in (country.name, country.capital)}
    names.update(faker_values("address", ("countries", "cities", "city_names", "states", "provinces", "regions")))
    folded = {" ".join(re.split(r"[\s-]+", fold(name))) for name in names}
    return {name for name in folded if re.fullmatch(r"[a-z]{3,}(?: [a-z]+){0,2}", name)}


def common_words(data: Path, names: set[str]) -> set[str]:
    """Words of the development data that stand in lower case more often than capitalised within a sentence.

    Texts without any capital, and tweets, say that a word is common only where it is no name.
    """
    lower: Counter[str] = Counter()
    upper: Counter[str] = Counter()
    for name, fields in _SOURCES:
        for line in (data / name).read_text("utf-8").rstrip("\n").split("\n"):
            row = json.loads(line)
            if int(row.get("hate") or 0):
                continue
            text = " ".join(str(row[field]) for field in fields)
            careless = text == text.lower() or row.get("source") == "davidson"
            for match in _WORD.finditer(text):
                word = match[0]
                if word.islower():
                    lower[fold(word)] += not (careless and fold(word) in names)
                elif (
                    not careless
                    and word.istitle()
                    and text[max(0, match.start() - 2) : match.start()].strip(' "(').isalnum()
                ):
                    upper[fold(word)] += 1
    return {word for word, count in lower.items() if count >= MIN_LOWER and count > upper[word] and word.isascii()}


def main() -> None:
    """Write the lexicon."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the development data")
    data = parser.parse_args().data
    given = latin_words(faker_values("person", ("first_name",)))
    family = latin_words(faker_values("person", ("last_name",)))
    sections = {
        "given": given,
        "family": family,
        "places": places(),
        "common": common_words(data, given | family),
    }
    lexicon = {name: "|".join(sorted(words)) for name, words in sections.items()}
    LEXICON_PATH.write_text(json.dumps(lexicon, ensure_ascii=True, indent=0) + "\n", "ascii")
    print({name: len(words) for name, words in sections.items()})


if __name__ == "__main__":
    main()
