"""Whether the answer has the format that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange, Judged

__all__ = ["format_validity", "requested_format"]

_WRAPPED, _VIOLATES = 0.75, 0.5
_MOST_ERRORS = 3
_FENCE = re.compile(r"```([\w+-]*)[^\n`]*\n(.*?)(?:```|\Z)", re.S)
_ANY_JSON = "{}"
_JSON = re.compile(
    r"(?i)\b(?:answer|respond|reply|return|output|give|format(?:ted)?|produce|write|provide|generate|as|in|only|valid)\b"
    r"[^.!?\n]{0,40}\bjson\b(?! schema| file| web| api| parser| librar)"
)
_NO_JSON = re.compile(r"(?i)\b(?:not|never|no|without|don't|avoid)\b[^.!?\n]{0,24}\bjson\b|\bjson (?:to|into) ")
_CODE = re.compile(
    r"(?i)\b(?:in|as|use|inside|within) (?:a |an |one )?(?:single )?(?:\w+ )?(?:fenced |markdown )?code ?block"
    r"|\bfenced (?:code|block)"
)
_TABLE = re.compile(r"(?i)\b(?:as|in|use|make|give|return|produce|create) (?:me )?(?:a |an )?(?:markdown )table\b")
_LIST = re.compile(r"(?i)\b(?:as|in|use|using|with) (?:a |an )?(bullet(?:ed)?|numbered)(?: points?| list)?\b")
_BULLET = re.compile(r"(?m)^\s*[-*•+]\s+\S")
_NUMBERED = re.compile(r"(?m)^\s*\d{1,3}[.)]\s+\S")
_TABLE_ROW = re.compile(r"(?m)^\s*\|?.+\|.+\n\s*\|?\s*:?-{2,}:?\s*\|")


@evaluator("format_validity", version="1", threshold=1.0, labels=("invalid", "valid"))
def format_validity(exchange: Exchange) -> Judged | None:
    """1 where the answer has the format that was asked for; nothing is said where none was.

    Against the request's JSON schema, or any JSON where the instructions or the question ask for JSON: 0.75 where only a
    fence or words around it are too much, 0.5 where it is JSON that breaks the schema, 0 where it is none. A code block, a
    Markdown table, a bulleted or numbered list that is asked for: 1 or 0. A schema that cannot be compiled judges nothing.
    """
    if exchange.response_format is not None:
        return _against_schema(exchange.answer, exchange.response_format)
    wanted = requested_format(exchange)
    answer = exchange.answer
    if wanted == "json":
        return _against_schema(answer, _ANY_JSON)
    if wanted == "code":
        return _yes(_FENCE.search(answer) is not None, "no fenced code block")
    if wanted == "table":
        return _yes(_TABLE_ROW.search(answer) is not None, "no Markdown table")
    if wanted == "bullet":
        return _yes(_BULLET.search(answer) is not None, "no bulleted list")
    if wanted == "numbered":
        return _yes(_NUMBERED.search(answer) is not None, "no numbered list")
    return None


def requested_format(exchange: Exchange) -> str | None:
    """Return json, code, table, bullet or numbered where the question, else the instructions ask for it in English."""
    instructions = [message.content for message in exchange.messages if message.role in ("system", "developer")]
    for text in (exchange.question, *instructions):
        if _JSON.search(text) and not _NO_JSON.search(text):
            return "json"
        if _CODE.search(text):
            return "code"
        if _TABLE.search(text):
            return "table"
        if match := _LIST.search(text):
            return "numbered" if match.group(1).lower() == "numbered" else "bullet"
    return None


def _yes(valid: bool, otherwise: str) -> Judged:
    return Judged(float(valid), reason="" if valid else otherwise)


def _against_schema(answer: str, schema: str) -> Judged | None:
    validator = _validator(schema)
    if validator is None:
        return None
    try:
        value = _parsed(answer)
        score, reason = 1.0, ""
    except (ValueError, RecursionError):
        for piece in _inner(answer):
            try:
                value = _parsed(piece)
            except (ValueError, RecursionError):
                continue
            score, reason = _WRAPPED, "JSON with a fence or words around it"
            break
        else:
            return Judged(0.0, reason="no JSON")
    problems = _problems(validator, value)
    return Judged(_VIOLATES, reason=problems) if problems else Judged(score, reason=reason)


def _problems(validator: Any, value: Any) -> str:
    """Return where ``value`` breaks the schema, by path and keyword: what stands there is left out."""
    try:
        found = islice(validator.iter_errors(value), _MOST_ERRORS)
        errors = [f"/{'/'.join(map(str, error.schema_path))}" for error in found]
    except (ValueError, RecursionError):  # nested too deep, or characters that no JSON text can carry
        return "nested too deep, or not encodable"
    return f"breaks the schema at {', '.join(errors)}" if errors else ""


def _inner(answer: str) -> Iterator[str]:
    for match in _FENCE.finditer(answer):
        yield match.group(2)
    for opening, closing in ("{}", "[]"):
        start, end = answer.find(opening), answer.rfind(closing)
        if 0 <= start < end:
            yield answer[start : end + 1]


def _parsed(text: str) -> Any:
    return json.loads(text, parse_constant=_refused)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@lru_cache(maxsize=128)
def _validator(schema: str) -> Any:
    """Return the compiled schema, None where it is none; offline, with expressions in linear time."""
    try:
        return jsonschema_rs.validator_for(
            json.loads(schema), pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        return None
