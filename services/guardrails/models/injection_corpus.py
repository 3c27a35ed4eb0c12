"""Rows that the injection classifiers learn from: the shared training data, documents of Python's standard library, our
own phrases.
"""

import ast
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data import topics as pydoc_topics
from typing import Any

from services.guardrails.models import injection_languages as languages
from services.guardrails.models import injection_phrases as phrases
from services.guardrails.models.corpus import generate_corpus
from services.guardrails.models.corpus.grammar import load
from services.guardrails.scanners.segments import sentences

MAX_CHARS = 4000
"""Characters of a text that the prompt classifier reads, in training as in service."""
HERE = Path(__file__).parent
_DOCUMENT_FILES = ("attacks_indirect", "benign_documents")
_MORE_DRAWS = 2
"""Rows drawn from a template of the corpus's grammars with the subjects of `injection_domains.txt` added, for each row
that the corpus has of it.
"""
_ALNUM = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Row:
    """`source` groups rows for cross-validation; `cluster` is equal for near duplicates, which must not be split over
    folds.
    """

    text: str
    label: int
    source: str
    cluster: str


def _cluster(text: str) -> str:
    return " ".join(_ALNUM.findall(text.lower())[:8])


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: --data names the folder of injection/, retrieval/, groundedness/ and toxicity/"
        )
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def _phrases(templates: list[str], label: int, source: str, each: int, seed: int) -> Iterator[Row]:
    for index, text in phrases.draw(templates, each, random.Random(seed)):
        yield Row(text, label, source, f"{source}-{index}")


def prompt_rows(data: Path) -> list[Row]:
    """Whole prompts: attacks against everything that people and programs ask. A text has one label: the first."""
    rows = own_rows()
    for entry in _read(data / "injection/train.jsonl"):
        label = int(entry["label"])
        # BIPIA's positives hide an ordinary instruction in a document: they teach the document classifier, not this
        # one.
        if entry["source"] != "bipia_ctx_train" or not label:
            rows.append(Row(entry["text"][:MAX_CHARS], label, entry["source"], _cluster(entry["text"])))
    rows += _phrases(phrases.ATTACKS, 1, "own_attacks", 10, 11)
    rows += _phrases(phrases.LOOKALIKES, 0, "own_lookalikes", 8, 12)
    rng = random.Random(13)
    rows += [Row(q["question"], 0, "xquad_questions", q["question"]) for q in _read(data / "retrieval/questions.jsonl")]
    rows += [Row(p["text"], 0, "xquad_passages", p["id"]) for p in _read(data / "retrieval/corpus.jsonl")]
    grounded = _read(data / "groundedness/train.jsonl")
    rows += [
        Row(g["question"], 0, "dialogue", g["question"])
        for g in rng.sample(grounded, 400)
        if isinstance(g["question"], str) and g["question"]
    ]
    rude = [t for t in _read(data / "toxicity/train.jsonl") if str(t["source"]).startswith("wiki")]
    rows += [
        Row(t["text"][:MAX_CHARS], 0, "rude_comments", _cluster(t["text"]))
        for t in rng.sample(rude, min(1200, len(rude)))
    ]
    return list({row.text: row for row in reversed(rows)}.values())[::-1]


def own_rows() -> list[Row]:
    """Prompts of the project's own corpus, of its grammars with more subjects, and of other languages."""
    rows = [Row(text, 0, "own_languages", f"{language}-{text}") for language, text in languages.ordinary()]
    rows += [
        Row(text, 1, "own_languages", f"{language}-{index}")
        for language, index, text in languages.attacks(3, random.Random(14))
    ]
    for path in sorted((HERE / "corpus").glob("*.jsonl")):
        if path.stem not in _DOCUMENT_FILES:
            rows += [Row(r["text"][:MAX_CHARS], int(r["label"]), path.stem, _cluster(r["text"])) for r in _read(path)]
    return rows + _more_subjects()


def _more_subjects() -> list[Row]:
    """What the corpus's framings give with the subjects and trigger words of this folder's own grammar files."""
    grammars = [*sorted((HERE / "corpus" / "grammars").glob("*.txt")), *sorted(HERE.glob("injection_*.txt"))]
    grammar = load(grammars)
    own = {template for path in HERE.glob("injection_*.txt") for template in path.read_text("utf-8").split("\n")}
    sections = []
    for section in grammar.sections:
        if "domains" in section.options and "poisoned" not in section.options["domains"]:
            kinds = (part.split(":") for part in section.options["domains"].split(","))
            drawn = ",".join(f"{kind}:{int(draws) * _MORE_DRAWS}" for kind, draws in kinds)
            sections.append(replace(section, options=section.options | {"domains": drawn}))
        elif section.options.get("domain") == "harm":
            draws = str(int(section.options.get("draws", "1")) * _MORE_DRAWS)
            sections.append(replace(section, options=section.options | {"draws": draws}))
        elif all(template in own for template in section.templates):
            sections.append(section)
    drawn_rows = generate_corpus.generate(replace(grammar, sections=sections)).rows
    return [
        Row(row["text"], int(row["label"]), name, _cluster(row["text"]))
        for name, rows in sorted(drawn_rows.items())
        for row in rows
    ]


def bipia_documents(data: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """(clean documents, [(poisoned document, its injected line)]).

    BIPIA puts the instruction on a line of its own; it is the line that no clean document holds and that is no part of
    one.
    """
    entries = [e for e in _read(data / "injection/train.jsonl") if e["source"] == "bipia_ctx_train"]
    clean = [e["text"] for e in entries if not int(e["label"])]
    everything = re.sub(r"\s+", "", " ".join(clean))
    poisoned = []
    for entry in entries:
        if int(entry["label"]):
            lines = [line.strip() for line in entry["text"].split("\n")]
            unknown = [
                line
                for line in lines
                if line and not line.startswith("|") and re.sub(r"\s+", "", line) not in everything
            ]
            # The e-mail that was cut in two by the injection leaves its halves unknown too; the instruction stands
            # between them.
            own = [
                line
                for line in unknown
                if line.endswith((".", "?", "!")) and len(line) < 160 and not line.startswith(("SUBJECT", "Hi", ","))
            ]
            poisoned.append((entry["text"], min(own or unknown, key=len) if unknown else ""))
    return clean, poisoned


def document_rows(data: Path) -> list[Row]:
    """Single sentences: instructions to an assistant against the sentences that documents are made of."""
    clean, poisoned = bipia_documents(data)
    rows = [Row(line, 1, "bipia", f"bipia-{line}") for _, line in poisoned if line]
    rows += _phrases(phrases.INDIRECT, 1, "own_indirect", 12, 21)
    rows += _phrases(phrases.ATTACKS, 1, "own_attacks", 6, 22)
    for entry in _read(data / "injection/train.jsonl"):
        text, source = entry["text"], entry["source"]
        if int(entry["label"]) and source in ("deepset_train", "cyberseceval", "giskard") and len(text) <= 300:
            rows.append(Row(text, 1, source, _cluster(text)))
        elif source == "seed_tasks" or (source in ("gpt_roleplay", "gpt_codegen") and hash_share(text) < 0.12):
            first = text.split("\n")[0][:300]
            rows.append(Row(first, 1, source, _cluster(first)))
    for index, entry in enumerate(_read(HERE / "corpus/attacks_indirect.jsonl")):
        injected = entry["injected"]
        rows += [
            Row(injected[a:b], 1, "own_indirect_corpus", f"indirect-{_cluster(injected)}")
            for a, b in sentences(injected)
            if len(_ALNUM.findall(injected[a:b])) >= 3
        ]
        rows += _sentences(entry["text"].replace(injected, "\n"), "own_documents_around", f"around-{index}")
    for index, entry in enumerate(_read(HERE / "corpus/benign_documents.jsonl")):
        rows += _sentences(entry["text"], "own_documents", f"document-{index}")
    for index, text in enumerate(clean):
        rows += _sentences(text, "bipia_clean", f"bipia-clean-{index}")
    for passage in _read(data / "retrieval/corpus.jsonl"):
        rows += _sentences(passage["text"], "xquad", passage["id"])
    for index, entry in enumerate(_read(data / "groundedness/train.jsonl")):
        if index % 3 == 0:
            rows += _sentences(entry["context"][:2000], "grounding", f"grounding-{index}")
    for name, text in sorted(pydoc_topics.topics.items()):
        rows += _sentences(text[:12_000], "python_docs", name)
    for name, text in docstrings():
        rows += _sentences(text, "python_docstrings", name)
    wiki = [t for t in _read(data / "toxicity/train.jsonl") if str(t["source"]).startswith("wiki")]
    for entry in random.Random(23).sample(wiki, min(600, len(wiki))):
        rows += _sentences(entry["text"][:600], "comments", _cluster(entry["text"]))
    return list({(row.text, row.label): row for row in rows}.values())


def docstrings() -> Iterator[tuple[str, str]]:
    """(module, its docstrings joined) of the standard library's top level: prose in the imperative mood, yet no order."""
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8", errors="replace"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
        texts = [text for node in nodes if (text := ast.get_docstring(node))]
        if texts:
            yield path.stem, "\n".join(texts)[:6000]


def hash_share(text: str) -> float:
    """A stable number in [0, 1) from a text: takes the same share of a source on every machine."""
    return (sum(map(ord, text)) * 2654435761 % 4096) / 4096


def _sentences(text: str, source: str, cluster: str) -> Iterator[Row]:
    for start, end in sentences(text):
        if len(_ALNUM.findall(text[start:end])) >= 3:
            yield Row(text[start:end], 0, source, cluster)
