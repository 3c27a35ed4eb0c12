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
_MOST_ERRORS, _MOST_MATCHES = 3, 16
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
_GIVE = r"(?:give|make|write|create|provide|produce|return|show)(?: me| us)? (?:a |an )?(?:short |brief )?"
_ASKED_LIST = re.compile(rf"(?i)\b{_GIVE}(bullet(?:ed)?|numbered)(?:[ -]point(?:ed)?)? list\b")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)|\n")
# "How do I return JSON?", "Does it answer in JSON?", "Write a function that returns JSON" ask for something else.
_HOW_OR_WHY = re.compile(r"(?i)^\W*(?:(?:and|so|but|hi|hello)\W+)?(?:how|why)\b")
_ASKS_WHETHER = re.compile(
    r"(?i)^\W*(?:(?:and|so|but|hi|hello)\W+)?(?:do|does|did|is|are|was|were|should|has|have|when|where|who"
    r"|(?:can|could|may|must|will|would)(?! you\b))\b"
)
_ASKS_WHAT = re.compile(r"(?i)^\W*(?:what|which)\b")
_MADE = re.compile(
    r"(?i)\b(?:function|method|script|program|endpoint|server|service|class|command|library|tool|api|app|code|handler|query)s?"
    r"(?: \w+)? (?:that|which|to|for|returning|producing|generating|writing|giving|so)\b"
)
_OTHER_JSON = re.compile(
    r"(?i)\b(?:this|that|these|following|my|our|below|above|given|input|of|about|on|between|from|than|like|parse|read|load)"
    r" json\b"
)
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
        if not _NO_JSON.search(text) and any(not _OTHER_JSON.search(one.group()) for one in _asked(_JSON, text)):
            return "json"
        if any(_asked(_CODE, text)):
            return "code"
        if any(_asked(_TABLE, text)):
            return "table"
        for match in (*_asked(_LIST, text), *_asked(_ASKED_LIST, text)):
            return "numbered" if match.group(1).lower() == "numbered" else "bullet"
    return None


def _asked(expression: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yield the matches in sentences that ask for an answer so, and not about such things."""
    for match in islice(expression.finditer(text), _MOST_MATCHES):
        start = max((end.end() for end in _SENTENCE_END.finditer(text, 0, match.start())), default=0)
        stop = _SENTENCE_END.search(text, match.end())
        lead, rest = text[start : match.end()], text[match.end() : stop.start() if stop else len(text)]
        question = stop is not None and stop.group().startswith("?")
        if _HOW_OR_WHY.match(lead) or _MADE.search(lead) or (question and _ASKS_WHETHER.match(lead)):
            continue
        # "What are the rivers of France in JSON?" and not "What is meant by in JSON a value is typed?"
        if _ASKS_WHAT.match(lead) and len(rest.split()) > 1:
            continue
        yield match


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
