"""Texts that the gibberish classifier learns from: ordinary text of every sort, as a Unix machine and the development data
hold it.

Nothing is copied into the project: the statistics that are trained on it are. The sources and their licences are in the
README beside this file.
"""

import csv
import gettext
import gzip
import hashlib
import html
import inspect
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.guardrails.models.data_like import MAKERS, OPENINGS

CODE = {
    ".py": "python", ".js": "javascript", ".css": "css", ".sql": "sql", ".sh": "shell", ".c": "c", ".h": "c", ".go": "go",
    ".pl": "perl", ".pm": "perl", ".cpp": "cpp", ".patch": "diff", ".m4": "m4", ".cmake": "cmake", ".el": "lisp",
    ".json": "json", ".xml": "xml", ".yaml": "yaml", ".svg": "xml", ".conf": "conf", ".csv": "csv", ".html": "html",
    ".toml": "conf", ".vim": "vim", ".log": "log", ".rb": "ruby", ".tcl": "tcl", ".java": "java", ".rs": "rust",
}  # fmt: skip
PROSE = {".md": "markdown", ".rst": "rst", ".txt": "text", ".gz": "man", ".pod": "pod"}
_LARGEST = 300_000
_ROFF = re.compile(r"^['.].*$|\\f[A-Z]|\\-|\\&|\\\(..|\\\*?\[[^\]]*\]", re.MULTILINE)
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^>]*>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """`part` is `statistics`, `train` or `test`, drawn by source file: the classifier must see the statistics as they
    are on texts they were not made of.
    """

    family: str  # prose, code, language
    kind: str
    part: str
    text: str


def _part(key: str) -> str:
    draw = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[0]
    return "statistics" if draw < 154 else "train" if draw < 218 else "test"


def _cut(text: str, rng: random.Random, most: int) -> Iterator[str]:
    """Up to `most` pieces of a prompt's length, from line to line."""
    if len(text) < 120:
        return
    for _ in range(min(most, 1 + len(text) // 6000)):
        length = int(rng.choice((250, 500, 1000, 2000)) * rng.uniform(0.6, 1.4))
        start = rng.randrange(max(1, len(text) - length))
        start = text.find("\n", start) + 1 if start else 0
        piece = text[start : start + length]
        if len(piece.strip()) >= 100:
            yield piece


def files(trees: list[Path], a_kind: int, seed: int) -> Iterator[Text]:
    """Pieces of at most `a_kind` files of each kind, from all folders of `trees`."""
    rng = random.Random(seed)
    found: dict[str, list[Path]] = defaultdict(list)
    for tree in trees:
        for path in sorted(tree.rglob("*")):
            if (kind := CODE.get(path.suffix) or PROSE.get(path.suffix)) and path.is_file():
                found[kind].append(path)
    for kind, paths in sorted(found.items()):
        for path in rng.sample(paths, min(a_kind, len(paths))):
            text = _read(path)
            family = "code" if path.suffix in CODE else "prose"
            if path.suffix == ".html":
                plain = re.sub(r"\s*\n\s*", "\n", html.unescape(_TAG.sub(" ", text)))
                for piece in _cut(plain, rng, 6):
                    yield Text("prose", "web pages", _part(str(path)), piece)
            if path.suffix == ".gz":
                language = path.parts[path.parts.index("man") + 1] if "man" in path.parts else "man1"
                if not language.startswith("man"):
                    family, kind = "language", language[:2]
                else:
                    kind = "man"
            for piece in _cut(text, rng, 10 if family == "prose" else 4):
                yield Text(family, kind, _part(str(path)), piece)


def _read(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw[:_LARGEST].decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        return ""
    return _ROFF.sub("", text) if path.suffix == ".gz" and text.count("\n.") > 5 else text


def translations(locale: Path, a_language: int, seed: int) -> Iterator[Text]:
    """Messages of the installed translations, some together as a text."""
    rng = random.Random(seed)
    messages: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(locale.glob("*/LC_MESSAGES/*.mo")):
        language = re.split("[_@.]", path.parts[-3])[0]
        if language == "en":
            continue
        try:
            with path.open("rb") as file:
                catalogue = vars(gettext.GNUTranslations(file))["_catalog"]
        except (OSError, UnicodeDecodeError, ValueError, IndexError):  # a header that gettext cannot read
            continue
        own = [v for k, v in catalogue.items() if isinstance(k, str) and isinstance(v, str) and k and v != k]
        messages[language, _part(str(path))] += sorted(v for v in own if len(v) > 8)
    for (language, part), found in sorted(messages.items()):
        rng.shuffle(found)
        position = 0
        for _ in range(a_language if part == "statistics" else a_language // 3):
            some = found[position : position + rng.choice((2, 5, 12))]
            position += len(some)
            if sum(map(len, some)) >= 100:
                yield Text("language", language, part, rng.choice(("\n", " ", "\n\n")).join(some)[:2000])


def development_data(data: Path, seed: int) -> Iterator[Text]:
    """What people write to an assistant and to each other."""
    rng = random.Random(seed)

    def lines(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (data / name).read_text("utf-8").split("\n") if line]

    for row in lines("injection/train.jsonl"):
        if not row["label"]:
            yield Text("prose", f"prompts {row['source']}", _part(row["text"]), row["text"][:3000])
    for row in rng.sample(lines("toxicity/train.jsonl"), 6000):
        yield Text("prose", "tweets and comments", _part(row["text"]), row["text"])
    for row in lines("groundedness/train.jsonl"):
        yield Text("prose", "dialogue", _part(row["response"]), f"{row['question']}\n{row['response']}")
    for row in lines("retrieval/corpus.jsonl"):
        yield Text("prose", "encyclopaedia", _part(row["text"]), row["text"])
    for row in lines("pii/train.jsonl"):
        yield Text("prose", "messages with personal data", _part(row["full_text"]), row["full_text"])
    requests = [row["text"] for row in lines("topics/train.jsonl")]
    for text in requests[::3]:
        yield Text("prose", "commands", _part(text), text)
    with (data / "toxicity/identity_templates.csv").open(newline="", encoding="utf-8") as file:
        phrases = [row["phrase"] for row in csv.DictReader(file)]
    for phrase in rng.sample(phrases, 500):
        yield Text("prose", "phrases", _part(phrase), phrase)


def data_like(seed: int, each: int) -> Iterator[Text]:
    """What programs print and people paste: identifiers, encodings, tables, logs, formulas, lists; none of it is prose
    and none of it gibberish.
    """
    rng = random.Random(seed)
    for name, make in sorted(MAKERS.items()):
        for index in range(each):
            opening = rng.choice(OPENINGS) if rng.random() < 0.6 else ""
            yield Text("code", name, _part(f"{name}{index}"), opening + make(rng))


def altered(texts: list[Text], seed: int, each: int) -> Iterator[Text]:
    """The same texts as people paste and type them: code on one line, prose without capitals or full of typing errors,
    two languages together, a sentence of prose around a line of code.
    """
    rng = random.Random(seed)
    parts = {part: [text for text in texts if text.part == part] for part in ("statistics", "train", "test")}
    for part, own in parts.items():
        by_family = {name: [t for t in own if t.family == name] for name in ("prose", "code", "language")}
        for _ in range(each if part == "train" else each // 2):
            prose, code, language = (rng.choice(by_family[name]).text for name in ("prose", "code", "language"))
            yield Text("code", "code on one line", part, re.sub(r"\s+", " ", code)[:1200])
            yield Text("code", "code without spaces", part, re.sub(r"\s*([^\w\s])\s*", r"\1", code)[:1200])
            yield Text("prose", "typing errors", part, _mistyped(prose[:800], rng))
            yield Text("prose", "no capitals", part, re.sub(r"[^\w\s]", "", prose[:800]).lower())
            yield Text("prose", "capitals", part, prose[:500].upper())
            yield Text("language", "two languages", part, f"{_whole_words(prose, 200)}\n{language[:300]}")
            line = rng.choice(code.splitlines() or [code])[:160]
            yield Text("prose", "code in prose", part, f"{_whole_words(prose, 200)} {line}\n{_whole_words(code, 80)}")


def _whole_words(text: str, most: int) -> str:
    return text[: text.rfind(" ", 0, most)] if len(text) > most else text


def _mistyped(text: str, rng: random.Random) -> str:
    found = list(text)
    for place in range(len(found) - 1):
        draw = rng.random()
        if draw < 0.015:
            found[place], found[place + 1] = found[place + 1], found[place]
        elif draw < 0.03:
            found[place] = ""
        elif draw < 0.04:
            found[place] *= 2
    return "".join(found)


def standard_library() -> Iterator[Text]:
    """Docstrings of the modules that this process has loaded."""
    import sys

    for name in sorted(sys.stdlib_module_names):
        module = sys.modules.get(name)
        for key, value in sorted(vars(module).items()) if module else ():
            if isinstance(text := inspect.getdoc(value), str) and len(text) > 100:
                yield Text("prose", "docstrings", _part(f"{name}.{key}"), text[:2000])
