"""Write the corpus from its grammars: `python -m services.guardrails.models.corpus.generate_corpus`.

The same files come out every time: each template draws from a generator seeded by its own text. Two rows of a label never
share `SHARED_WORDS` words in a row, and no two rows of the corpus begin with the same five words unless a section says
`repeat=1`. A share of the rows of both labels alike is written carelessly (lower case, missing punctuation, typing
errors), so that care is no evidence.
"""

import argparse
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.guardrails.models.corpus.grammar import Grammar, Writer, load, ngrams, words
from services.guardrails.models.corpus.transforms import TRANSFORMS

HERE = Path(__file__).parent
SHARED_WORDS = 14
OPENING = 5
SEED = 20
MAX_CHARS = 4000
OPENERS = 0.18
"""Share of texts, of both labels, that begin with a greeting or the like (`@slot opener`)."""
TARGETS = {
    "harm": ("attacks_semantic", 1, "semantic"),
    "safe": ("benign_framed", 0, "framed"),
    "defensive": ("benign_unsafe_sounding", 0, "unsafe_sounding"),
    "poisoned": ("attacks_indirect", 1, "indirect"),
    "clean": ("benign_documents", 0, "documents"),
}
"""Kind of domain to the file, label and family of rows that a section without `file` writes."""


@dataclass(frozen=True, slots=True)
class Target:
    file: str
    label: int
    family: str
    kind: str
    draws: int


def _targets(options: dict[str, str]) -> list[Target]:
    """Where a section's rows go: its own file, or one file for each kind of domain it lists (`domains=harm:5,safe:3`)."""
    if "file" in options:
        label = int(options["file"].startswith("attacks_"))
        family = options["file"].partition("_")[2]
        return [Target(options["file"], label, family, options.get("domain", ""), int(options.get("draws", "1")))]
    kinds = [part.split(":") for part in options["domains"].split(",")]
    return [Target(*TARGETS[kind], kind, int(draws)) for kind, draws in kinds]


def careless(text: str, rng: random.Random) -> str:
    """About a third of the texts as people type them."""
    roll = rng.random()
    if roll < 0.11:
        text = text.lower()
    elif roll < 0.15:
        text = TRANSFORMS["some_typos"](text, rng)
    elif roll < 0.18:
        text = TRANSFORMS["some_typos"](text.lower(), rng).replace("'", "")
    elif roll < 0.20 and len(text) < 200:
        text = text.upper()
    if rng.random() < 0.12:
        text = re.sub(r"[.!]$", "", text)
    if rng.random() < 0.04:
        text = text.replace(", ", " ")
    return text


def _tidy(text: str) -> str:
    """Without the doubled blanks and stranded commas that empty alternatives leave."""
    text = re.sub(r"(?<=\S) {2,}(?=\S)", " ", text.strip())
    text = re.sub(r"(?<=\w) ([.,])(?=\s|$)", r"\1", text)
    return re.sub(r",+ ?(?=[.,;:?!](?:\s|$))", "", text)


class Corpus:
    """Rows accepted so far; refuses what repeats them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.openings: set[str] = set()
        self.seen: dict[int, set[str]] = {0: set(), 1: set()}
        self.texts: set[str] = set()

    def add(self, target: Target, row: dict[str, Any], repeat: bool) -> bool:
        """Whether the row was new enough to be kept."""
        text = row["text"]
        opening = " ".join(words(text)[:OPENING])
        grams = set(ngrams(text, SHARED_WORDS))
        if text.lower() in self.texts or (not repeat and (opening in self.openings or grams & self.seen[target.label])):
            return False
        self.texts.add(text.lower())
        self.openings.add(opening)
        self.seen[target.label] |= grams
        self.rows[target.file].append(row)
        return True


def _row(
    grammar: Grammar, target: Target, options: dict[str, str], template: str, rng: random.Random
) -> dict[str, Any]:
    domain = rng.choice(grammar.domains(target.kind)) if target.kind else ""
    writer = Writer(grammar.slots, rng, domain)
    text = _tidy(writer.write(template))
    if options.get("plain") != "1":
        if options.get("opener") != "0" and "opener" in grammar.slots and rng.random() < OPENERS:
            text = f"{writer.write('$opener')} {text}"
        text = careless(text[:1].upper() + text[1:], rng)
    row: dict[str, Any] = {
        "text": text[:MAX_CHARS],
        "label": target.label,
        "family": target.family,
        "framing": options["framing"],
    }
    injected = writer.bound.get("injected1")
    if injected is not None:
        row["injected"] = _tidy(injected)
    return row


def generate(grammar: Grammar) -> Corpus:
    corpus = Corpus()
    for section in grammar.sections:
        repeat = section.options.get("repeat") == "1"
        for target in _targets(section.options):
            for template in section.templates:
                rng = random.Random(f"{SEED}:{target.file}:{template}")
                left, tries = target.draws, 0
                while left and tries < 25 * target.draws:
                    left -= corpus.add(target, _row(grammar, target, section.options, template, rng), repeat)
                    tries += 1
    return corpus


def report(corpus: Corpus) -> str:
    """Rows, framings, lengths of every file, the size of all, the share of rows whose opening repeats."""
    lines, openings, size = [], Counter[str](), 0
    for file, rows in sorted(corpus.rows.items()):
        openings.update(" ".join(words(row["text"])[:OPENING]) for row in rows)
        lengths = sorted(len(row["text"]) for row in rows)
        size += sum(len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in rows)
        framings = Counter(row["framing"] for row in rows)
        quartiles = [lengths[len(lengths) * q // 4] for q in (1, 2, 3)]
        lines.append(
            f"{file}: {len(rows)} rows, {len(framings)} framings, characters {quartiles}, longest {lengths[-1]}"
        )
    total = sum(openings.values())
    repeated = sum(n for n in openings.values() if n > 1) / total
    lines.append(
        f"all: {total} rows, {size / 1e6:.2f} MB, {repeated:.1%} of the rows share their first {OPENING} words"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the JSON lines")
    arguments = parser.parse_args()
    corpus = generate(load(sorted((HERE / "grammars").glob("*.txt"))))
    for file, rows in corpus.rows.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (arguments.out / f"{file}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    print(report(corpus))


if __name__ == "__main__":
    main()
