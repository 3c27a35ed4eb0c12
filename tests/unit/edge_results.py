"""Results as the edge gets them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from penstock.contracts.records import Context, LlmResult, ResultChunk, Usage

from services.edge.protocol import Ticket

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)
CONTEXT = Context(
    route="support",
    prompt_name="answer",
    prompt_version="0123456789abcdef",
    prompt_label="production",
    policy_name="strict",
    policy_version="fedcba9876543210",
    requested_at=AT,
)
TICKET = Ticket("shop", "r-1", AT)
_RESULT = LlmResult(
    event_id="e-1", request_id="r-1", tenant_id="shop", occurred_at=AT, causation_id="c-1", context=CONTEXT,
    status="completed", content="Forty days.", finish_reason="stop", model="large-1",
    usage=Usage(input_tokens=12, output_tokens=4, cached_input_tokens=8, reasoning_tokens=1),
)  # fmt: skip


def result(**changes: Any) -> LlmResult:
    """Return a completed result, with ``changes``."""
    return msgspec.structs.replace(_RESULT, **changes)


def ended(status: str, code: str, reason: str = "because", **changes: Any) -> LlmResult:
    """Return a result that no model answered."""
    early = {"content": "", "finish_reason": None, "model": None, "usage": Usage()} | changes
    return result(status=status, code=code, reason=reason, stage="intake", **early)


def pieces(*texts: str, finish_reason: str | None = "stop") -> list[ResultChunk]:
    """Return the pieces of an answer; the last one has ``finish_reason``."""
    return [
        ResultChunk(
            event_id=f"p-{n}", request_id="r-1", tenant_id="shop", occurred_at=AT, causation_id="c-1", context=CONTEXT,
            sequence=n, content=text, finish_reason=finish_reason if n == len(texts) - 1 else None,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
