"""Many regular expressions over one text in linear time (RE2, which the services and the CLI carry)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import re2

__all__ = ["MAX_MATCHES", "PatternSet", "encodable"]

MAX_MATCHES = 10_000
"""Matches of one expression in one text. More would have to be masked one by one: the scanner fails instead, and the
rule's `fail` decides.
"""

MAX_MEMORY = 64 << 20
"""Bytes of automaton that RE2 may build for one set; it is slower without, never wrong."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """The text, of the same length, with U+FFFD for the lone surrogates that UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


class PatternSet:
    """Expressions matched together: one pass tells which of them occur at all, so a text without any costs
    microseconds.

    Raises ValueError naming the expression that RE2 does not take.
    """

    def __init__(
        self, expressions: Iterable[str], first_group: bool = False, max_matches: int | None = MAX_MATCHES
    ) -> None:
        """With ``first_group`` a match is where its first group is, for expressions that need to see more than they
        find; one that has no group is where it matches. ``max_matches`` is None for a caller that bounds its own work.
        """
        self._options = re2.Options()
        self._options.log_errors = False
        self._options.max_mem = MAX_MEMORY
        self._set = re2.Set.SearchSet(self._options)
        self._expressions = tuple(expressions)
        # Most expressions never occur in the texts of a process: each is compiled when it first does.
        self._compiled: dict[int, Any] = {}
        self._first_group = first_group
        self._max_matches = max_matches
        for expression in self._expressions:
            try:
                self._set.Add(expression)
            except re2.error:
                raise ValueError(
                    f"{expression!r} is not an RE2 expression ({self._why_not(expression)}); look-around and "
                    "back-references do not exist there"
                ) from None
        if len(self._expressions) > 1:
            self._set.Compile()

    def occurring(self, text: str) -> frozenset[int]:
        """Indexes of the expressions that match anywhere."""
        if len(self._expressions) > 1:
            return frozenset(self._set.Match(encodable(text)) or ())
        return frozenset(index for index in range(len(self._expressions)) if self._one(index).search(encodable(text)))

    def spans(self, index: int, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of every match of one expression. Raises OverflowError above the most that are taken."""
        compiled = self._one(index)
        group = 1 if self._first_group and compiled.groups else 0
        for count, match in enumerate(compiled.finditer(encodable(text))):
            if self._max_matches is not None and count >= self._max_matches:
                raise OverflowError(f"more than {self._max_matches} matches of {compiled.pattern!r}: split the text")
            start, end = match.span(group)
            if start < end:
                yield start, end

    def _one(self, index: int) -> Any:
        compiled = self._compiled.get(index)
        if compiled is None:
            compiled = self._compiled[index] = re2.compile(self._expressions[index], options=self._options)
        return compiled

    def _why_not(self, expression: str) -> str:
        try:
            re2.compile(expression, options=self._options)
        except re2.error as error:
            return str(error)
        return "it cannot be combined with others"

    def matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(index of the expression, start, end) of every match, by expression and then by place. Raises OverflowError
        as `spans` does.
        """
        for index in sorted(self.occurring(text)):
            for start, end in self.spans(index, text):
                yield index, start, end
