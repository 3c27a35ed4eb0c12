"""What to do with finds that overlap."""

from collections.abc import Iterable

from services.guardrails.findings import Span


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
