"""Many regular expressions over one text in linear time (RE2), and what to do with finds that overlap."""

from collections.abc import Iterable, Iterator
from itertools import islice

import re2

from services.guardrails.findings import Span

MAX_MATCHES = 500
"""Matches taken of one expression in one text: bounds the work on a text made of nothing else."""


class PatternSet:
    """Expressions matched together: one pass tells which of them occur at all, so a text without any costs
    microseconds.

    Raises ValueError naming the expression that RE2 does not take.
    """

    def __init__(self, expressions: Iterable[str], first_group: bool = False) -> None:
        """With ``first_group`` a match is where its first group is, for expressions that need to see more than they find."""
        self._set = re2.Set.SearchSet()
        self._compiled = []
        self._group = 1 if first_group else 0
        options = re2.Options()
        options.log_errors = False
        for expression in expressions:
            try:
                self._compiled.append(re2.compile(expression, options=options))
                self._set.Add(expression)
            except re2.error as error:
                raise ValueError(
                    f"{expression!r} is not an RE2 expression ({error}); look-around and back-references do not exist there"
                ) from error
        if self._compiled:
            self._set.Compile()

    def matches(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(index of the expression, start, end) of every match, by expression and then by place."""
        if not self._compiled:
            return
        for index in sorted(self._set.Match(text) or ()):
            for match in islice(self._compiled[index].finditer(text), MAX_MATCHES):
                start, end = match.span(self._group)
                if start < end:
                    yield index, start, end


def without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """The spans in order of place; of those that overlap, the surest stays, then the longest, then the first by place
    and name.
    """
    kept: list[Span] = []
    ends = -1
    ordered = sorted(spans, key=lambda span: (span.start, -span.score, -span.end, span.kind))
    for span in ordered:
        if span.start >= ends:
            kept.append(span)
            ends = span.end
        elif (span.score, span.end - span.start) > (kept[-1].score, kept[-1].end - kept[-1].start):
            kept[-1] = span
            ends = max(ends, span.end)
    return kept
