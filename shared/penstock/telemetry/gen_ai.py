"""OpenTelemetry's conventions for generative AI, as Penstock's metrics and spans use them: every name stands here, once.

Names, values and bucket boundaries are those of the conventions (https://github.com/open-telemetry/semantic-conventions-genai).
The package opentelemetry-semantic-conventions no longer keeps them: its constants are deprecated, so they are stated here.
What a user wrote or a model said is never an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from penstock.contracts.records import Context, Sampling, Usage

__all__ = [
    "CHAT", "CONVERSATION_ID", "DURATION_BUCKETS", "EMBEDDINGS", "ERROR_TYPE", "FINISH_REASONS", "OPERATION_DURATION",
    "OPERATION_NAME", "OTHER", "OUTPUT_TYPE", "PROVIDER_NAME", "REQUEST_CHOICE_COUNT", "REQUEST_DURATION",
    "REQUEST_FREQUENCY_PENALTY", "REQUEST_MAX_TOKENS", "REQUEST_MODEL", "REQUEST_PRESENCE_PENALTY", "REQUEST_SEED",
    "REQUEST_STREAM", "REQUEST_TEMPERATURE", "REQUEST_TOP_K", "REQUEST_TOP_P", "RESPONSE_FINISH_REASONS", "RESPONSE_ID",
    "RESPONSE_MODEL", "SERVER_ADDRESS", "SERVER_PORT", "TIME_PER_OUTPUT_TOKEN", "TIME_PER_OUTPUT_TOKEN_BUCKETS",
    "TIME_TO_FIRST_TOKEN", "TIME_TO_FIRST_TOKEN_BUCKETS", "TOKEN_BUCKETS", "TOKEN_TYPE", "TOKEN_USAGE",
    "USAGE_CACHE_CREATION_INPUT_TOKENS", "USAGE_CACHE_READ_INPUT_TOKENS", "USAGE_INPUT_TOKENS", "USAGE_OUTPUT_TOKENS",
    "USAGE_REASONING_OUTPUT_TOKENS", "Attributes", "finish_reason", "label", "metric", "provider", "request_attributes",
    "response_attributes", "span_name",
]  # fmt: skip

Attributes = Mapping[str, str | int | float | bool | tuple[str, ...]]
"""Attributes of a span."""

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
CONVERSATION_ID = "gen_ai.conversation.id"
OUTPUT_TYPE = "gen_ai.output.type"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_TOP_P = "gen_ai.request.top_p"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
TOKEN_TYPE = "gen_ai.token.type"
USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

OPERATION_DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"
REQUEST_DURATION = "gen_ai.server.request.duration"
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"
TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token"

CHAT = "chat"
"""The operation: a chat completion."""
EMBEDDINGS = "embeddings"
"""The operation: vectors of texts."""
OTHER = "_OTHER"
"""Value of an attribute whose own is none of those that are known."""
FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls", "error", "cancelled"})
"""Why a generation ends: OpenAI's, and those of one that gave no answer."""

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TIME_TO_FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
)  # fmt: skip
TIME_PER_OUTPUT_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKEN_BUCKETS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864
)  # fmt: skip

_PROVIDERS = {"extractive": "penstock", "embedding": "penstock"}


def metric(name: str, unit: str = "") -> str:
    """Return the name of a metric in Prometheus, as OpenTelemetry's exporter translates it: dots become underscores, and
    the unit stands behind."""
    return name.replace(".", "_") + (f"_{unit}" if unit else "")


def label(attribute: str) -> str:
    """Return the label of a Prometheus metric that stands for an attribute."""
    return attribute.replace(".", "_")


def provider(backend: str) -> str:
    """Return gen_ai.provider.name of a backend of a route's targets: who runs the model, as far as is known.

    An OpenAI-compatible endpoint is ``openai``, whoever runs it; server.address tells them apart.
    """
    return _PROVIDERS.get(backend, backend)


def span_name(model: str) -> str:
    """Return the name of the span of a call of ``model``."""
    return f"{CHAT} {model}"


def finish_reason(reason: str) -> str:
    """Return why a generation ended, as a label of a metric: endpoints may say whatever they like."""
    return reason if reason in FINISH_REASONS else OTHER


def request_attributes(
    context: Context, sampling: Sampling, *, backend: str, model: str, base_url: str | None = None, stream: bool = False
) -> Attributes:
    """Return the attributes of a call's span that are known before it is made.

    Args:
        backend: of the target.
        model: as it is asked for.
        base_url: address of the endpoint, where the model runs behind one.
        stream: whether the answer is wanted in pieces.
    """
    structured = sampling.response_format is not None
    found: dict[str, str | int | float | bool | tuple[str, ...] | None] = {
        OPERATION_NAME: CHAT,
        PROVIDER_NAME: provider(backend),
        REQUEST_MODEL: model,
        CONVERSATION_ID: context.conversation_id,
        OUTPUT_TYPE: "json" if structured else "text",
        REQUEST_CHOICE_COUNT: sampling.n if sampling.n != 1 else None,
        REQUEST_FREQUENCY_PENALTY: sampling.frequency_penalty,
        REQUEST_MAX_TOKENS: sampling.max_completion_tokens,
        REQUEST_PRESENCE_PENALTY: sampling.presence_penalty,
        REQUEST_SEED: sampling.seed,
        REQUEST_STREAM: True if stream else None,
        REQUEST_TEMPERATURE: sampling.temperature,
        REQUEST_TOP_K: sampling.top_k,
        REQUEST_TOP_P: sampling.top_p,
        **_address(base_url),
    }
    # Stop sequences are the user's words: they stay out, though the conventions have a name for them.
    return {name: value for name, value in found.items() if value is not None}


def response_attributes(*, model: str, finish_reasons: tuple[str, ...], usage: Usage, event_id: str) -> Attributes:
    """Return the attributes of a call's span that its answer gives.

    Args:
        model: as whoever answered names it.
        finish_reasons: of every answer that was generated, the first first.
        event_id: of the completion.
    """
    found: dict[str, str | int | tuple[str, ...]] = {
        RESPONSE_ID: event_id,
        RESPONSE_MODEL: model,
        RESPONSE_FINISH_REASONS: finish_reasons,
        USAGE_INPUT_TOKENS: usage.input_tokens,
        USAGE_OUTPUT_TOKENS: usage.output_tokens,
    }
    special = {
        USAGE_CACHE_READ_INPUT_TOKENS: usage.cached_input_tokens,
        USAGE_CACHE_CREATION_INPUT_TOKENS: usage.cache_write_input_tokens,
        USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_tokens,
    }
    return found | {name: tokens for name, tokens in special.items() if tokens}


def _address(base_url: str | None) -> dict[str, str | int | float | bool | tuple[str, ...] | None]:
    """Return where an endpoint is; nothing of what else its address may hold."""
    if base_url is None:
        return {}
    try:
        parts = urlsplit(base_url)
        return {SERVER_ADDRESS: parts.hostname, SERVER_PORT: parts.port}
    except ValueError:
        return {}
