"""Which event a send is, whether a result ends its request, and why an identity is not given twice. Pure."""

from __future__ import annotations

import msgspec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import LlmRequest, LlmResult
from penstock.contracts.request_content import content_hash

__all__ = ["conflict_reason", "fingerprint", "may_come_again", "sent_event_id"]


def fingerprint(request: LlmRequest) -> str:
    """Return what two sends of one key and one content have in common, whatever their request_ids are."""
    return f"{request.key_id}:{content_hash(msgspec.structs.replace(request, request_id=''))}"


def sent_event_id(key: tuple[str, str], number: int) -> str:
    """Return the event_id of a request in its ``number``-th try: a send that is repeated is the same event."""
    return event_id(f"{key[0]}/{key[1]}", "edge.request", number)


def conflict_reason(request_id: str) -> str:
    """Return why a request is turned away whose identity is another one's."""
    return f"request_id {request_id!r} is another request's, with other content: send another"


def may_come_again(result: LlmResult) -> bool:
    """Return whether ``result`` ends one try alone: the same request may be admitted after its Retry-After."""
    return result.retry_after_ms is not None
