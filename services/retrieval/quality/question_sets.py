"""Question sets: the documents of a corpus, questions, and which documents answer which question.

Two layouts are read, and mixed freely:

- BEIR's (Thakur et al. 2021): ``corpus.jsonl`` with ``_id``, ``title``, ``text``; ``queries.jsonl`` with ``_id``, ``text``;
  ``qrels.tsv`` with ``query-id``, ``corpus-id``, ``score``. A qrels file of TREC (four columns, the second unused) is read,
  too, and so are questions and documents as a table: with tabs (``.tsv``, ``.txt``) or commas (``.csv``), under the names of
  its columns, or of id and text.
- questions that name their documents: ``id``, ``question`` and ``relevant``, a list of ids or an object of id and grade.
  An empty one says that no document of the corpus answers.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from penstock.config.canonical import content_hash

__all__ = ["Passage", "Question", "QuestionSet", "QuestionSetError", "read_question_set"]

_IDS = ("_id", "id", "doc_id", "query_id")
_TEXTS = ("text", "question", "query", "content", "contents")
# What the first column of a table is called, where it has names.
_FIRST_COLUMNS = {
    *_IDS, "corpus-id", "corpus_id", "doc-id", "docid", "docno", "pid", "qid", "query", "query-id", "question-id",
    "question_id", "topic",
}  # fmt: skip
_COLUMNS = {"id", "title", "content_type", "language", *_TEXTS}
_TABLES = (".csv", ".tsv", ".txt")


class QuestionSetError(Exception):
    """A file cannot be used; the message names the file, the line, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A document of the corpus: a short one, as question sets have them, or a whole file."""

    id: str
    title: str
    text: str
    content_type: str = "text/plain"
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the grades of the documents that answer it; none where no document of the corpus does."""

    id: str
    text: str
    relevant: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """What rankings are measured by.

    Attributes:
        questions: those that some document answers.
        strays: those that no document of the corpus answers, by their judgements.
        unjudged: number of questions of which nothing is said; they are not asked.
        missing: relevant documents that the corpus does not hold.
        version: hash of questions and judgements; the corpus is not part of it.
    """

    corpus: tuple[Passage, ...]
    questions: tuple[Question, ...]
    strays: tuple[Question, ...]
    unjudged: int
    missing: int
    version: str


def read_question_set(corpus: Sequence[Path], queries: Sequence[Path], qrels: Sequence[Path] = ()) -> QuestionSet:
    """Read documents, questions and judgements; several files of a kind are one.

    Raises:
        QuestionSetError: a file cannot be read, or does not fit the others.
    """
    documents = tuple(_unique(_passage(where, fields) for where, fields in _rows(corpus)))
    if not documents:
        raise QuestionSetError(f"{_named(corpus)}: there is no document in it")
    graded = _grades(qrels)
    asked: list[Question] = []
    strays: list[Question] = []
    unjudged = 0
    known: set[str] = set()
    for where, fields in _rows(queries):
        identity, text = _text(where, fields, _IDS, "an id").strip(), _text(where, fields, _TEXTS, "a question")
        if identity in known:
            raise QuestionSetError(f"{where}: the question {identity!r} stands there a second time; remove one")
        known.add(identity)
        own = _relevant(where, fields.get("relevant"))
        grades = {**(own or {}), **graded.get(identity, {})}
        relevant = {document: grade for document, grade in sorted(grades.items()) if grade > 0}
        if relevant:
            asked.append(Question(identity, text, relevant))
        elif own is not None or identity in graded:
            strays.append(Question(identity, text, {}))
        else:
            unjudged += 1
    if graded and graded.keys().isdisjoint(known):
        raise QuestionSetError(
            f"no question of {_named(qrels)} is in {_named(queries)}: ids of questions and judgements do not belong "
            f"together, e.g. {min(graded)!r} beside {min(known, default='')!r}"
        )
    if not asked:
        raise QuestionSetError(
            f"{_named(queries)}: no question has a relevant document; give --qrels, or a field relevant to each question"
        )
    ids = {document.id for document in documents}
    missing = {document for question in asked for document in question.relevant} - ids
    if len(missing) == len({document for question in asked for document in question.relevant}):
        raise QuestionSetError(
            f"no relevant document is in {_named(corpus)}: ids of corpus and judgements do not belong together, "
            f"e.g. {min(missing)!r} beside {documents[0].id!r}"
        )
    said = [[each.id, each.text, dict(each.relevant)] for each in (*asked, *strays)]
    version = content_hash(json.dumps(sorted(said), ensure_ascii=True))
    return QuestionSet(documents, tuple(asked), tuple(strays), unjudged, len(missing), version)


def _unique(passages: Iterable[tuple[str, Passage]]) -> Iterator[Passage]:
    known: set[str] = set()
    for where, passage in passages:
        if passage.id in known:
            raise QuestionSetError(f"{where}: the document {passage.id!r} stands there a second time; remove one")
        known.add(passage.id)
        yield passage


def _passage(where: str, fields: Mapping[str, Any]) -> tuple[str, Passage]:
    title = str(fields.get("title") or "")
    # Large sets hold documents without a text, of which the title is all there is.
    texts = [value for name in _TEXTS if isinstance(value := fields.get(name), str)]
    language = fields.get("language") or None
    if not isinstance(language, str | None):
        raise QuestionSetError(f"{where}: language is a code, such as en")
    blank = bool(texts) and not any(map(str.strip, texts))
    return where, Passage(
        id=_text(where, fields, _IDS, "an id").strip(),
        # Titles of encyclopedias are often written as they stand in addresses.
        title=title.replace("_", " ") if " " not in title else title,
        text=title if blank else _text(where, fields, _TEXTS, "a text"),
        content_type=str(fields.get("content_type") or "text/plain"),
        language=language,
    )


def _text(where: str, fields: Mapping[str, Any], names: Sequence[str], what: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise QuestionSetError(f"{where}: it has no {what.partition(' ')[2]}; name it {' or '.join(names)}")


def _relevant(where: str, value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return {str(document): 1.0 for document in value}
    if isinstance(value, dict):
        try:
            grades = {str(document): float(grade) for document, grade in value.items()}
        except (TypeError, ValueError):
            grades = {"": math.nan}
        if all(map(math.isfinite, grades.values())):
            return grades
    raise QuestionSetError(f"{where}: relevant is a list of document ids, or an object of ids and their grades")


def _grades(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the judgements of qrels files: grade by document by question."""
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        for number, (where, cells) in enumerate(_cells(path)):
            if number == 0 and cells[0].lower() in _FIRST_COLUMNS:
                continue
            if len(cells) not in (3, 4):
                raise QuestionSetError(
                    f"{where}: {len(cells)} columns; write query-id, corpus-id and score, or the four columns of TREC"
                )
            try:
                grade = float(cells[-1])
            except ValueError:
                grade = math.nan
            if not math.isfinite(grade):
                raise QuestionSetError(f"{where}: the score {cells[-1]!r} is no number")
            found.setdefault(cells[0], {})[cells[-2]] = grade
    return found


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the fields of every line: an object of JSON, or the cells of a table."""
    for path in paths:
        if path.suffix.lower() in _TABLES:
            yield from _table(path)
            continue
        for where, line in _lines(path):
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise QuestionSetError(f"{where}: it is not JSON: {error}; write one object a line") from None
            if not isinstance(fields, dict):
                raise QuestionSetError(f'{where}: write an object, such as {{"id": "1", "text": "..."}}')
            yield where, fields


def _table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a table by the names of its columns; of one without names, or with two, they are id and text."""
    columns: list[str] = []
    for number, (where, cells) in enumerate(_cells(path, spaces=False)):
        if number == 0 and cells[0].lower() in _FIRST_COLUMNS:
            columns = ["id", *map(str.lower, cells[1:])]
        elif len(columns) <= 2:
            yield where, {"id": cells[0], "text": "\t".join(cells[1:])}
        elif len(cells) != len(columns):
            raise QuestionSetError(f"{where}: {len(cells)} cells under {len(columns)} columns")
        else:
            yield where, {name: cell for name, cell in zip(columns, cells, strict=True) if name in _COLUMNS}


def _cells(path: Path, spaces: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield the cells of every row, without the space around them.

    Args:
        spaces: whether white space parts the cells of a row that has no tab.
    """
    if path.suffix.lower() == ".csv":
        with _opened(path) as file:
            reader = csv.reader(file)
            rows = ((f"{path}:{reader.line_num}", row) for row in reader if any(map(str.strip, row)))
            yield from ((where, [*map(str.strip, row)]) for where, row in rows)
        return
    for where, line in _lines(path):
        yield where, [*map(str.strip, line.split("\t" if "\t" in line or not spaces else None))]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}:{number}", line.rstrip("\r\n")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file of text; what goes wrong while it is read is a QuestionSetError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise QuestionSetError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        if path.read_bytes()[:2] == b"\x1f\x8b":
            raise QuestionSetError(f"{path} is compressed; unpack it") from error
        raise QuestionSetError(f"{path} is not UTF-8 (byte {error.start + 1}); convert it") from error
    except csv.Error as error:
        raise QuestionSetError(f"{path} is no table: {error}; write JSON lines") from error


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
