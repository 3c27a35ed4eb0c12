"""What the edge makes of a result: which status of HTTP, which error, and whether it is one at all. Pure.

:mod:`~services.edge.openai_requests` reads what clients ask, :mod:`~services.edge.openai_replies` writes what they are
answered, :mod:`~services.edge.sse` the same while it is under way.
"""

from __future__ import annotations

from penstock.contracts.records import LlmResult, Status

from services.edge.errors import ApiError

__all__ = ["RESULT_STATUSES", "error_of", "is_answer", "kept_back"]

_OPENAI_CODES = {
    "unknown_route": "model_not_found",
    "prompt_too_many_tokens": "context_length_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "token_rate_limited": "rate_limit_exceeded",
    "too_many_concurrent": "rate_limit_exceeded",
    "over_budget": "insufficient_quota",
    "queue_too_long": "slow_down",
}
"""Codes of Penstock's for which OpenAI's API has its own, that clients know."""
_BY_CODE = {
    "over_budget": 429,
    "queue_too_long": 503,
    "key_required": 401,
    "key_revoked": 401,
    "key_expired": 401,
    "unknown_team": 403,
    "unknown_route": 404,
    "unknown_prompt": 404,
    "unknown_policy": 404,
    "no_messages": 400,
    "prompt_too_many_tokens": 400,
    "too_many_inputs": 413,
    "too_many_messages": 413,
    "too_many_tokens": 413,
    "conflict": 409,
    "invalid_prompt_variables": 422,
}
"""Statuses of what intake refuses: see services/intake."""
_BY_STATUS: dict[str, int] = {
    Status.BLOCKED: 400,
    Status.REJECTED: 422,
    Status.FAILED: 500,
    Status.EXPIRED: 504,
    Status.CANCELLED: 409,
}
"""Where the code says nothing more: what was asked is understood and not served; or it is Penstock's own fault."""
RESULT_STATUSES = frozenset({200, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503, 504})
"""Every status that a result may be answered with."""
_RETRIED = frozenset({500, 503})
"""A model or a part of Penstock broke: the next attempt may fare better."""


def is_answer(result: LlmResult) -> bool:
    """Return whether ``result`` is answered with a completion: the model's answer, or that it is :func:`kept_back`."""
    return result.status == Status.COMPLETED or kept_back(result)


def kept_back(result: LlmResult) -> bool:
    """Return whether a model did answer and guardrails released nothing of it.

    OpenAI's API tells that with a completion whose ``finish_reason`` is ``content_filter``: nothing was wrong with the
    request, the call is paid for, and its usage is told. A question that is blocked before is an error.
    """
    return result.status == Status.BLOCKED and result.model is not None


def error_of(result: LlmResult, *, again: bool = False) -> ApiError:
    """Return the error that a result without an answer is told as.

    Args:
        again: whether the request's identity is the client's own. Sent again, it would be given this same result, so a
            client is told not to, unless the result itself says after which time it is worth it.
    """
    code = result.code or result.status
    status = _status(result, code)
    if result.status == Status.BLOCKED:
        told = "content_filter"
        message = f"{result.reason or 'the request was blocked'} ({code})"
    else:
        told, message = _OPENAI_CODES.get(code, code), result.reason or f"the request ended as {result.status}"
    # Where the time is known after which it is worth it, that decides.
    retry = True if status in _RETRIED and not again and result.retry_after_ms is None else None
    return ApiError(
        status,
        message,
        code=told,
        param="model" if code == "unknown_route" else None,
        retry_after_ms=result.retry_after_ms,
        retry=retry,
    )


def _status(result: LlmResult, code: str) -> int:
    if result.status == Status.FAILED and code == "model_unavailable":
        return 503
    if result.status == Status.FAILED and code == "unsupported_request":
        return 422
    if result.status == Status.REJECTED:
        if known := _BY_CODE.get(code):
            return known
        if result.retry_after_ms is not None:
            return 429
        if code.endswith("_not_allowed"):
            return 403
        if code.endswith("_too_large"):
            return 413
        if code.startswith(("invalid_", "unknown_")):
            return 400
    return _BY_STATUS.get(result.status, 500)
