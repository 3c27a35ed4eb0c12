"""What an endpoint says it used, in the words of several providers, and what is taken where it says nothing. Pure."""

from __future__ import annotations

import msgspec
from penstock.contracts.records import Usage

__all__ = ["ReportedUsage", "estimated_usage", "usage_of"]


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """``usage`` of a chat completion. OpenAI's fields, and those in which endpoints before Anthropic's models give its
    prompt cache (https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching).
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


def usage_of(
    reported: ReportedUsage | None, *, prompt_size: int, answer_size: int, most_output: int | None
) -> tuple[Usage, bool]:
    """Return the tokens of a call, and whether any of them had to be estimated.

    No call is free: a prompt of no tokens, or an answer of none that has text, is what an endpoint says that does not
    count. It is estimated from above then (see :func:`estimated_usage`).

    Args:
        reported: what the endpoint said; None where it said nothing.
        prompt_size: bytes of the prompt.
        answer_size: bytes of the answer.
        most_output: most tokens that were asked for.
    """
    reported = reported or ReportedUsage()
    bound = estimated_usage(prompt_size, answer_size, most_output)
    prompt = reported.prompt_tokens_details or _PromptDetails()
    cached = _count(prompt.cached_tokens) or _count(reported.cache_read_input_tokens)
    written = _count(prompt.cache_creation_tokens) or _count(reported.cache_creation_input_tokens)
    output = reported.completion_tokens_details or _CompletionDetails()
    input_tokens, output_tokens = _count(reported.prompt_tokens), _count(reported.completion_tokens)
    estimated = input_tokens == 0 or (output_tokens == 0 and answer_size > 0)
    unsaid = _count(reported.total_tokens) - input_tokens - output_tokens
    if input_tokens > 0 and (cached + written > input_tokens or 0 < unsaid == cached + written):
        # Anthropic's own count leaves out what was read from the cache or written to it.
        input_tokens += cached + written
    elif unsaid > 0 and not estimated:
        # Tokens of reasoning that only the total has, as xAI and Google count them: they are charged as generated ones.
        output_tokens += unsaid
    return Usage(
        input_tokens=input_tokens or max(bound.input_tokens, cached + written),
        output_tokens=output_tokens or bound.output_tokens,
        cached_input_tokens=cached,
        cache_write_input_tokens=written,
        reasoning_tokens=_count(output.reasoning_tokens),
    ), estimated


def estimated_usage(prompt_size: int, answer_size: int, most_output: int | None) -> Usage:
    """Return the most tokens of so many bytes: a byte-level tokenizer makes at most one of a byte.

    English text has about a quarter of it. What stays unseen, such as reasoning that is not part of the answer, is not
    in it.
    """
    return Usage(
        input_tokens=prompt_size, output_tokens=answer_size if most_output is None else min(answer_size, most_output)
    )


def _count(tokens: int | None) -> int:
    return max(0, tokens or 0)
