"""Answers that must be JSON of a schema, or match an expression; mended where nothing is lost by it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import json_repair
import jsonschema_rs
import re2

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.coercion import coerced

__all__ = ["FormatScanner"]

MAX_REPAIRED = 5_000
"""Characters of a text whose syntax is mended: the mending parser goes over what it does not understand again and again,
at this size for a third of a second at the worst seen.
"""
MAX_DEPTH = 32
"""Brackets inside brackets up to which syntax is mended."""
MAX_CANDIDATES = 16
"""Pieces of an answer that are tried as the answer."""
_FENCE = re.compile(r"```[^\n`]{0,40}\n?(.*?)(?:```|\Z)", re.S)
_QUOTES = (("**", "**"), ("__", "__"), ("`", "`"), ('"', '"'), ("'", "'"), ("“", "”"), ("*", "*"), ("$", "$"))
_LEAD = re.compile(r"^[^\n:]{1,60}:\s*")


class FormatScanner:
    """Finds answers that are no JSON (INVALID_JSON), that break the rule's schema (SCHEMA_VIOLATION), or that as a whole
    match none of its expressions (PATTERN_MISMATCH); white space around the answer is let through. Scores are 0 or 1.
    """

    name = "format"
    version = "1"
    default_threshold = 0.5

    def check(self, rule: Rule) -> None:
        """Raise ValueError where the schema or an expression cannot be used."""
        if rule.json_schema is not None:
            _validator(rule.json_schema)
        for pattern in rule.patterns:
            _expression(pattern)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        problem = _problem(text, rule)
        return [Span(problem, 0, len(text), 1.0)] if problem else []

    def repair(self, text: str, rule: Rule) -> str | None:
        """The answer without the fence, prose or quotes around it, its JSON mended and its values of the types that the
        schema asks for; None where that does not make it valid.

        A value changes its type only where the text of it says the same: "3" for 3, not "three".
        """
        for candidate in _candidates(text, rule):
            if _problem(candidate, rule) is None:
                return candidate
        if rule.json_schema is None:
            return None
        schema = _schema(rule.json_schema)
        for value in _values(text):
            for mended in (value, coerced(value, schema)):
                try:
                    written = _written(mended)
                except (ValueError, RecursionError):
                    continue
                if _problem(written, rule) is None:
                    return written
        return None


def _written(value: Any) -> str:
    """JSON of a value, readable where UTF-8 can carry it. Raises ValueError, and RecursionError where it is nested too
    deep.
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return written


def _problem(text: str, rule: Rule) -> str | None:
    """The kind of find, or None where the text is as the rule wants it."""
    if rule.json_schema is not None:
        try:
            value = _parsed(text)
        except (ValueError, RecursionError):
            return "INVALID_JSON"
        try:
            if not _validator(rule.json_schema).is_valid(value):
                return "SCHEMA_VIOLATION"
        except (ValueError, RecursionError):  # nested too deep, or characters that no JSON text can carry
            return "SCHEMA_VIOLATION"
    if rule.patterns and not any(
        _expression(pattern).fullmatch(form) for pattern in rule.patterns for form in {text, text.strip()}
    ):
        return "PATTERN_MISMATCH"
    return None


def _parsed(text: str) -> Any:
    """The value of a JSON text (RFC 8259). Raises ValueError, and RecursionError where it is nested too deep."""
    return json.loads(text, parse_constant=_refused)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@lru_cache(maxsize=128)
def _validator(schema: str) -> jsonschema_rs.Validator:
    """Compiled once a schema. Raises ValueError where it cannot be."""
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(
            f"json_schema cannot be used: {str(error).splitlines()[0]} (no look-around in patterns, no references outside)"
        ) from error


@lru_cache(maxsize=128)
def _schema(schema: str) -> Any:
    return json.loads(schema)


@lru_cache(maxsize=512)
def _expression(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise ValueError(f"{pattern!r} is no RE2 expression: {error} (no look-around, no back-references)") from error


def _candidates(text: str, rule: Rule) -> Iterator[str]:
    """Pieces of the answer that may be what was asked for, the widest first."""
    for piece in (text.strip(), *islice(_fenced(text), MAX_CANDIDATES)):
        yield from _inner(piece)
    if rule.json_schema is not None:
        yield from _bracketed(text)
    if rule.patterns:
        lines = [line.strip() for line in text.split("\n", 200)[:200] if line.strip()]
        for line in lines if len(lines) <= MAX_CANDIDATES else (lines[0], lines[-1]):
            yield from _inner(line)


def _fenced(text: str) -> Iterator[str]:
    for match in _FENCE.finditer(text):
        yield match.group(1).strip()


def _inner(piece: str) -> Iterator[str]:
    """The piece, and what is left of it without a lead ("Answer:"), quotes and a full stop."""
    for form in (piece, _LEAD.sub("", piece, count=1)):
        yield form
        for _ in range(3):
            bare = form.removesuffix(".").rstrip()
            for opening, closing in _QUOTES:
                if len(bare) > len(opening + closing) and bare.startswith(opening) and bare.endswith(closing):
                    bare = bare[len(opening) : -len(closing)].strip()
                    break
            if bare == form or not bare:
                break
            form = bare
            yield form


def _bracketed(text: str) -> Iterator[str]:
    """From the first opening bracket to the last closing one, for objects and for arrays, the outer first."""
    found = []
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            found.append((start, end + 1))
    for start, end in sorted(found):
        yield text[start:end]


def _values(text: str) -> Iterator[Any]:
    """What the answer may hold as JSON: parsed where it parses, else mended."""
    pieces = [
        *_bracketed(text),
        *islice(_fenced(text), MAX_CANDIDATES),
        text.strip(),
    ]
    for piece in pieces:
        try:
            yield _parsed(piece)
        except (ValueError, RecursionError):
            continue
    for piece in dict.fromkeys(pieces):
        if len(piece) > MAX_REPAIRED or _depth(piece) > MAX_DEPTH:
            continue
        try:
            value = json_repair.loads(piece, skip_json_loads=True)
        except (ValueError, RecursionError):
            continue
        if value != "":
            yield value


def _depth(text: str) -> int:
    """Most brackets open at once, wherever they stand."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth = max(0, depth - 1)
    return deepest
