"""Question sets: the documents of a corpus, questions, and which documents answer which question.

Two layouts are read, and mixed freely:

- BEIR's (Thakur et al. 2021): ``corpus.jsonl`` with ``_id``, ``title``, ``text``; ``queries.jsonl`` with ``_id``, ``text``;
  ``qrels.tsv`` with ``query-id``, ``corpus-id``, ``score``. A qrels file of TREC (four columns, the second unused) is read,
  too, and so are questions as a table of id and text.
- questions that name their documents: ``id``, ``question`` and ``relevant``, a list of ids or an object of id and grade.
  An empty one says that no document of the corpus answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.config.canonical import content_hash

__all__ = ["Passage", "Question", "QuestionSet", "QuestionSetError", "read_question_set"]

_IDS = ("_id", "id", "doc_id", "query_id")
_TEXTS = ("text", "question", "query", "content", "contents")
_HEADERS = {"query-id", "query_id", "qid", "query"}


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
        identity, text = _text(where, fields, _IDS, "an id"), _text(where, fields, _TEXTS, "a question")
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
    blank = bool(texts) and not any(map(str.strip, texts))
    return where, Passage(
        id=_text(where, fields, _IDS, "an id"),
        # Titles of encyclopedias are often written as they stand in addresses.
        title=title.replace("_", " ") if " " not in title else title,
        text=title if blank else _text(where, fields, _TEXTS, "a text"),
        content_type=str(fields.get("content_type") or "text/plain"),
        language=fields.get("language"),
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
            return {str(document): float(grade) for document, grade in value.items()}
        except (TypeError, ValueError):
            pass
    raise QuestionSetError(f"{where}: relevant is a list of document ids, or an object of ids and their grades")


def _grades(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the judgements of qrels files: grade by document by question."""
    found: dict[str, dict[str, float]] = {}
    for where, line in _lines(paths):
        cells = line.split("\t") if "\t" in line else line.split()
        if cells[0].strip().lower() in _HEADERS:
            continue
        if len(cells) not in (3, 4):
            raise QuestionSetError(
                f"{where}: {len(cells)} columns; write query-id, corpus-id and score, or the four columns of TREC"
            )
        try:
            grade = float(cells[-1])
        except ValueError:
            raise QuestionSetError(f"{where}: the score {cells[-1]!r} is no number") from None
        found.setdefault(cells[0].strip(), {})[cells[-2].strip()] = grade
    return found


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the fields of every line: an object of JSON, or the cells of a table of id and text."""
    for path in paths:
        table = path.suffix.lower() in (".tsv", ".txt")
        for where, line in _lines([path]):
            if table:
                identity, _, text = line.partition("\t")
                if identity.strip().lower() not in (*_HEADERS, *_IDS):
                    yield where, {"id": identity, "text": text}
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise QuestionSetError(f"{where}: it is not JSON: {error}") from None
            if not isinstance(fields, dict):
                raise QuestionSetError(f'{where}: write an object, such as {{"id": "1", "text": "..."}}')
            yield where, fields


def _lines(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"{path}:{number}", line.rstrip("\r\n")
        except OSError as error:
            raise QuestionSetError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise QuestionSetError(f"{path} is not UTF-8 (byte {error.start + 1}); convert it") from error


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
