"""Which event a send is, and whether a result ends its request. Pure."""

from __future__ import annotations

from penstock.contracts.envelope import event_id
from penstock.contracts.records import LlmResult

__all__ = ["may_come_again", "sent_event_id"]


def sent_event_id(key: tuple[str, str], number: int) -> str:
    """Return the event_id of a request in its ``number``-th try: a send that is repeated is the same event."""
    return event_id(f"{key[0]}/{key[1]}", "edge.request", number)


def may_come_again(result: LlmResult) -> bool:
    """Return whether ``result`` ends one try alone: the same request may be admitted after its Retry-After."""
    return result.retry_after_ms is not None
