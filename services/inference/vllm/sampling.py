"""How a request is asked of the engine: its sampling parameters in vLLM's names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.contracts.records import Priority, Sampling

from services.inference.pieces import MAX_WAIT_S
from services.inference.vllm.tools import Tools

__all__ = ["QUIET_INTERVAL", "Asked", "SamplingError", "asked_of", "engine_priority", "reading_interval"]

QUIET_INTERVAL = 16
"""Tokens that gather before word of them comes where nobody reads along: word of each costs the process as much time
as generating it costs a small model."""
_MOST_READ_ALONG = 8
_GREEDY = 1e-5
"""Temperatures below it are 0 to vLLM (vllm/sampling_params.py, _SAMPLING_EPS)."""


class SamplingError(ValueError):
    """A request asks for what no engine can do; the message names the parameter and the remedy."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the engine is asked for.

    Attributes:
        parameters: keyword arguments of vLLM's SamplingParams.
        structured: those of its StructuredOutputsParams; empty for free text.
        copies: times that each answer is given: at temperature 0 all are the same, so one is generated.
    """

    parameters: Mapping[str, Any]
    structured: Mapping[str, Any] = field(default_factory=dict)
    copies: int = 1


def asked_of(
    sampling: Sampling, *, room: int, defaults: Mapping[str, Any], interval: int, tools: Tools | None = None
) -> Asked:
    """Return what ``sampling`` comes to.

    Args:
        room: tokens that the prompt leaves of the context window, 1 or more.
        defaults: what the model's own generation config says, in vLLM's names; it fills what the request leaves open.
        interval: tokens that gather before word of them comes; of the first one it comes at once.
        tools: that the model may call; what holds it to calls holds it to the schema or the expression, too, where both can.

    Raises:
        SamplingError: it contradicts itself.
    """
    if sampling.regex is not None and sampling.response_format is not None:
        raise SamplingError("sampling.regex and sampling.response_format exclude each other: leave one of them out")
    wanted = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logprobs": sampling.top_logprobs,
        "max_tokens": sampling.max_completion_tokens,
    }
    parameters = {**defaults, **{name: value for name, value in wanted.items() if value is not None}}
    parameters["max_tokens"] = min(room, parameters.get("max_tokens", room))
    copies = 1
    if sampling.n > 1:
        if parameters.get("temperature", 1.0) < _GREEDY:
            copies = sampling.n
        else:
            parameters["n"] = sampling.n
    if interval > 1:
        parameters["stream_interval"] = interval
    structured: Mapping[str, Any] = {}
    if tools is not None:
        parameters |= tools.parameters
        structured = tools.structured
    elif sampling.response_format is not None:
        structured = {"json": sampling.response_format}
    elif sampling.regex is not None:
        structured = {"regex": sampling.regex}
    return Asked(parameters, structured, copies)


def engine_priority(priority: str) -> int:
    """Return a request's priority as the engine's scheduler takes it: the smaller is served first."""
    order = list(Priority)
    return order.index(Priority(priority)) if priority in order else order.index(Priority.STANDARD)


def reading_interval(pace_s: float | None) -> int:
    """Return how many tokens gather where somebody reads along: those of the time that pieces are gathered for anyhow.

    Args:
        pace_s: seconds that a token took lately; None where that is not known: each is told.
    """
    return 1 if pace_s is None else max(1, min(_MOST_READ_ALONG, int(MAX_WAIT_S / max(pace_s, 1e-6))))
