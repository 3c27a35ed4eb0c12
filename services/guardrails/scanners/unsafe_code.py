"""Code that is dangerous to run, or that does not even parse."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Iterator
from xml.parsers import expat

import yaml
from penstock.text.patterns import PatternSet

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.code_blocks import Block, blocks
from services.guardrails.scanners.patterns import without_overlaps
from services.guardrails.scanners.unsafe_python import unsafe_calls
from services.guardrails.scanners.unsafe_rules import PYTHON_RULES, RULES

__all__ = ["UnsafeCodeScanner"]

MAX_PARSED = 20_000
"""Characters of a block that is parsed."""
_WARNING = re.compile(
    r"(?i)\b(?:(?:never|don'?t|do not|must not|should not|shouldn't|not to) (?:ever |just |blindly )?(?:run|use|execute"
    r"|type|do|write|call|paste|pass|try|copy|enter|put)|avoid|warning|beware|dangerous|danger|unsafe|instead of"
    r"|vulnerable|rather than|attackers?|malicious|harmful|destructive)\b"
)
# What is said about a command that is not given to be run.
_COMMENT = re.compile(r"^\s*(?:#|//|--|\*|/\*|;|rem\b|<!--)", re.I)
_PLACEHOLDER = re.compile(r"\.\.\.|…|<[\w -]+>|\{\{|\[\w+[ _]\w+\]")
_MAGIC = re.compile(r"(?m)^\s*[%!?].*$")
_PYTHONS = ("python", "unknown", "any")


class UnsafeCodeScanner:
    """Finds code that destroys, opens a door or runs what strangers send (DANGEROUS_CODE), anywhere in the text; and fenced
    Python, JSON, YAML or XML that does not parse (MALFORMED_CODE).

    Python that parses is judged by its syntax tree, all else by expressions. What is warned of, or stands in a comment,
    scores half. Scores are graded: 0.9 and above is harm by itself (`rm -rf /`, a reverse shell), about 0.7 a hole (SQL put
    together from input, certificates not checked), below 0.5 what is unusual at most.
    """

    name = "unsafe_code"
    version = "1"
    default_threshold = 0.5

    def __init__(self) -> None:
        self._rules = PatternSet([expression for _, expression in (*RULES, *PYTHON_RULES)])
        self._scores = [score for score, _ in (*RULES, *PYTHON_RULES)]

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        found: list[Span] = []
        parsed: list[tuple[int, int]] = []
        pieces = []
        for block in blocks(text):
            pieces.append(block)
            if block.end - block.start > MAX_PARSED:
                continue
            reference.checkpoint()
            if block.language in _PYTHONS and block.score >= 0.3:
                tree = _parsed(text[block.start : block.end])
                if tree is not None:
                    parsed.append((block.start, block.end))
                    found += _placed(text, block, tree)
            if block.fenced and (score := _malformed(text[block.start : block.end], block)):
                found.append(Span("MALFORMED_CODE", block.start, block.end, score))
        reference.checkpoint()
        for index, start, end in self._rules.matches(text):
            if index >= len(RULES) and any(first <= start < last for first, last in parsed):
                continue
            score = self._scores[index]
            if _COMMENT.match(text[text.rfind("\n", 0, start) + 1 : end]) or _is_warned_of(text, start, pieces):
                score /= 2
            found.append(Span("DANGEROUS_CODE", start, end, score))
        dangerous = without_overlaps(span for span in found if span.kind == "DANGEROUS_CODE")
        return sorted([*dangerous, *(s for s in found if s.kind != "DANGEROUS_CODE")], key=lambda s: (s.start, s.end))


def _is_warned_of(text: str, start: int, pieces: list[Block]) -> bool:
    """Whether the sentence before warns of what follows; in a block of its own, the line above it does."""
    block = next((piece for piece in pieces if piece.start <= start < piece.end and piece.fenced), None)
    if block is not None:
        # The last of the lines before is the fence.
        above = [line for line in text[max(0, block.start - 300) : block.start].split("\n")[:-2] if line.strip()]
        return bool(above) and _WARNING.search(above[-1]) is not None
    line = text[text.rfind("\n", 0, start) + 1 : start][-200:]
    return _WARNING.search(line) is not None


def _parsed(content: str) -> ast.AST | None:
    """The syntax tree, or None for what is no Python or too much of it."""
    source = textwrap.dedent(_MAGIC.sub("", content))
    if source.lstrip().startswith(">>>"):
        source = "\n".join(line[4:] for line in source.split("\n") if line.startswith((">>> ", "... ")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes and comparisons in code that is not ours
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _placed(text: str, block: Block, tree: ast.AST) -> Iterator[Span]:
    """Finds of the tree at their lines; where lines were taken out or shifted, at the whole block."""
    content = text[block.start : block.end]
    same = textwrap.dedent(content) == content and not _MAGIC.search(content) and not content.lstrip().startswith(">>>")
    starts = [block.start]
    for line in content.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    for call in unsafe_calls(tree):
        if not same or call.end_line >= len(starts):
            yield Span("DANGEROUS_CODE", block.start, block.end, call.score)
            continue
        first, last = starts[call.line - 1], starts[call.end_line - 1]
        yield Span(
            "DANGEROUS_CODE",
            first + _column(text[first : starts[call.line] - 1], call.column),
            last + _column(text[last : starts[call.end_line] - 1], call.end_column),
            call.score,
        )


def _column(line: str, column: int) -> int:
    """Code points for a column that counts UTF-8 bytes."""
    return column if line.isascii() else len(line.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "ignore"))


def _malformed(content: str, block: Block) -> float:
    """How surely a block is broken that its fence calls Python, JSON, YAML or XML; 0 where it parses."""
    named = block.declared
    if named in ("python", "py", "python3"):
        broken = _parsed(content) is None
    elif named in ("json",):
        broken = not _is_json(content)
    elif named in ("yaml", "yml"):
        broken = not _is_yaml(content)
    elif named == "xml":
        broken = not _is_xml(content)
    else:
        return 0.0
    if not broken:
        return 0.0
    filled_in = _PLACEHOLDER.search(content) if named != "xml" else "..." in content or "{{" in content
    commented = named == "json" and re.search(r"//|(?m:^\s*#)", content)
    return 0.4 if filled_in or commented else 0.7


def _is_json(content: str) -> bool:
    try:
        json.loads(content)
    except ValueError:
        # One value a line is JSON Lines, which fences call JSON too.
        lines = [line for line in content.split("\n") if line.strip()]
        if len(lines) < 2:
            return False
        try:
            for line in lines:
                json.loads(line)
        except (ValueError, RecursionError):
            return False
    except RecursionError:
        return False
    return True


def _is_yaml(content: str) -> bool:
    try:
        # Events only: nothing is built, so aliases cannot multiply.
        for _ in yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return True


def _is_xml(content: str) -> bool:
    """Well-formed, several roots allowed; declared entities are not followed."""
    whole = content.lstrip().startswith("<?xml") or "<!DOCTYPE" in content
    parser = expat.ParserCreate()
    parser.DefaultHandler = lambda _: None  # keeps entities from being expanded
    try:
        parser.Parse(content.strip() if whole else f"<x>{content}</x>", True)
    except (expat.ExpatError, ValueError):
        return False
    return True
