"""The corpus of the injection classifiers: its grammar language, and that the shipped rows are what the grammars say."""

import json
import random
from pathlib import Path

import pytest

from services.guardrails.models.corpus import generate_corpus
from services.guardrails.models.corpus.grammar import Grammar, GrammarError, Section, Writer, load, ngrams
from services.guardrails.models.corpus.transforms import TRANSFORMS, gerund

SLOTS = {
    "colour": ["red", "orange"],
    "harm.fraud.deed": ["forge a coin"],
    "harm.common.tone": ["dry"],
    "tone": ["warm"],
}


def _write(template: str, domain: str = "", seed: int = 1) -> str:
    return Writer(SLOTS, random.Random(seed), domain).write(template)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a(n) {orange}", "an orange"),
        ("a(n) {university}", "a university"),
        (r"\{x\|y\} costs \$colour\n", "{x|y} costs $colour\n"),
        ("{a{b|b}|a{b|b}}", "ab"),
    ],
)
def test_choices_articles_and_escapes(template: str, text: str) -> None:
    assert _write(template) == text


def test_a_numbered_slot_is_bound_and_two_numbers_differ() -> None:
    for seed in range(20):
        first, again, other = _write("$colour1 $colour1 $colour2", seed=seed).split()
        assert first == again != other


def test_a_domain_narrows_a_slot_then_its_kind_then_everything() -> None:
    assert _write("$deed.ing, $tone", domain="harm.fraud") == "forging a coin, dry"
    assert _write("$tone", domain="safe.kitchen") == "warm"


@pytest.mark.parametrize("template", ["{a|b", "a}", "$missing"])
def test_a_broken_template_names_its_fault(template: str) -> None:
    with pytest.raises(GrammarError, match=r"closed|opened|no fillers"):
        _write(template)


def test_text_without_a_header_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "loose.txt"
    path.write_text("# a comment\nloose text\n", "utf-8")
    with pytest.raises(GrammarError, match=r"loose\.txt:2"):
        load([path])


@pytest.mark.parametrize(
    ("verb", "form"), [("make tea", "making tea"), ("rob", "robbing"), ("lie", "lying"), ("see", "seeing")]
)
def test_gerund(verb: str, form: str) -> None:
    assert gerund(verb) == form


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_keeps_something_and_repeats_with_its_seed(name: str) -> None:
    texts = [TRANSFORMS[name]("where is the library", random.Random(3)) for _ in range(2)]
    assert texts[0].strip()
    assert texts[0] == texts[1]


def test_generation_refuses_what_repeats_a_row() -> None:
    grammar = Grammar(slots=SLOTS)
    grammar.sections = load_section("five words open this row and {one|two}")
    rows = generate_corpus.generate(grammar).rows["benign_prompts"]
    assert len(rows) == 1


def load_section(template: str) -> list[Section]:
    options = {"file": "benign_prompts", "framing": "x", "draws": "2", "plain": "1"}
    return [Section(options, [template])]


def test_the_shipped_rows_are_what_the_grammars_write() -> None:
    folder = Path(generate_corpus.__file__).parent
    corpus = generate_corpus.generate(load(sorted((folder / "grammars").glob("*.txt"))))
    assert sum(len(rows) for rows in corpus.rows.values()) > 10_000
    seen: dict[str, int] = {}
    for file, rows in corpus.rows.items():
        shipped = [json.loads(line) for line in (folder / f"{file}.jsonl").read_text("utf-8").split("\n") if line]
        assert shipped == rows, (
            f"{file}.jsonl is stale: run python -m services.guardrails.models.corpus.generate_corpus"
        )
        for row in rows:
            assert seen.setdefault(row["text"], row["label"]) == row["label"]
            assert row.get("injected", "") in row["text"]
    pieces = [set(ngrams(row["text"], 14)) for row in corpus.rows["attacks_semantic"]]
    assert len(set().union(*pieces)) == sum(map(len, pieces))
