"""What a request must be to be admitted, whoever else asks for what: its parts, their sizes and their values. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import msgspec
import re2
from penstock.config.kinds import Policy, Team
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import LlmRequest, Message, Priority, Purpose, Sampling

__all__ = [
    "PRIORITIES",
    "PURPOSES",
    "Limits",
    "context_bytes",
    "identifiable",
    "message_problem",
    "policy_problem",
    "sampling_problem",
]

PURPOSES = tuple(purpose for purpose in Purpose if purpose is not Purpose.SHADOW)
"""What a request may be for."""
PRIORITIES = tuple(Priority)
"""Who may be served first."""
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_MOST_LOGPROBS = 20
"""Likeliest tokens of a place, as in OpenAI's API."""
_REGEX_MEMORY = 1 << 20
"""Bytes that RE2 may take for an expression: one of nested repetitions would keep an engine busy for long."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,200}")


class Policies(Protocol):
    """The part of the config plane that knows the policies."""

    def policy(self, name: str) -> Policy | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that hold for every team."""

    max_prompt_bytes: int = 1_048_576
    max_messages: int = 500
    # Texts of a request for vectors, as in OpenAI's API, and their bytes: a core embeds some 35 kB a second.
    max_inputs: int = 2_048
    max_embedding_bytes: int = 262_144
    # Bytes of conversation, user, key and tags together: they stand in keys of Redis and of topics, and in every event.
    max_context_bytes: int = 16_384
    # Bytes of the JSON schema that an answer is asked to follow.
    max_schema_bytes: int = 65_536
    # Bytes of the regular expression that an answer is asked to match.
    max_regex_bytes: int = 2_048
    # Strings that end an answer, and their bytes together: each token is held against all of them.
    max_stops: int = 16
    max_stop_bytes: int = 1_024
    # Answers to one request.
    max_answers: int = 8
    # Reserved where neither request nor route says how long an answer may be.
    default_max_completion_tokens: int = 1024
    # How long a request without a deadline may wait for its answer: llm-requests is retained no longer.
    answered_within: timedelta = timedelta(days=8)
    # The embedding model that retrieval uses.
    embedder: str = "all-MiniLM-L6-v2"


def identifiable(request: LlmRequest) -> str | None:
    """Return why no result could ever be told apart for ``request``, or None. Such a request is a dead letter."""
    if not _REQUEST_ID.fullmatch(request.request_id):
        return "request_id must be 1 to 200 printable ASCII characters without spaces; send the request with another"
    if not request.event_id:
        return "event_id is empty; set it to a UUID of the send"
    if not request.tenant_id or len(request.tenant_id) > 200:
        return "tenant_id must name the team, in up to 200 characters"
    if "{" in request.tenant_id or "}" in request.tenant_id:
        # They end the team in its keys in Redis: what follows would be read as another team's.
        return "tenant_id holds a brace, and no team's name does; send the name of the team"
    return None


def context_bytes(request: LlmRequest) -> int:
    """Return the bytes of what is said of a request beside its messages."""
    texts = [request.conversation_id or "", request.user_id or "", request.key_id or ""]
    return sum(len(text.encode()) for text in (*texts, *request.tags, *request.tags.values()))


def policy_problem(request: LlmRequest, team: Team, config: Policies) -> tuple[str, str] | None:
    """Return code and reason where the request names a policy that its team may not choose; else None."""
    name = request.policy_name
    if name is None:
        return None
    if name not in team.allowed_policies:
        allowed = ", ".join(team.allowed_policies) or "none"
        return "policy_not_allowed", (
            f"team {team.name!r} may not choose policy {name!r}; its allowed_policies are: {allowed}. Leave policy_name "
            "out, or have the policy added there"
        )
    if config.policy(name) is None:
        return "unknown_policy", f"no policy {name!r} is configured; see `penstock config show policies`"
    return None


def message_problem(messages: list[Message], sampling: Sampling, limits: Limits) -> tuple[str, str] | None:
    """Return code and reason where no model can be asked this; else None."""
    if not messages:
        return "no_messages", "the request has no messages and no prompt; send messages or name a prompt"
    if len(messages) > limits.max_messages:
        return "too_many_messages", f"{len(messages)} messages are more than the {limits.max_messages} allowed"
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            return (
                "invalid_role",
                f"messages[{index}].role is {message.role!r}; it must be one of {', '.join(sorted(_ROLES))}",
            )
    size = sum(map(message_bytes, messages))
    if size > limits.max_prompt_bytes:
        return "prompt_too_large", f"the messages are {size:,} bytes, more than the {limits.max_prompt_bytes:,} allowed"
    return sampling_problem(sampling, limits)


def sampling_problem(sampling: Sampling, limits: Limits) -> tuple[str, str] | None:
    """Return code and reason where no model can be asked to generate so; else None."""
    bounds = (
        ("temperature", sampling.temperature, 0, 2),
        ("top_p", sampling.top_p, 0, 1),
        ("min_p", sampling.min_p, 0, 1),
        ("frequency_penalty", sampling.frequency_penalty, -2, 2),
        ("presence_penalty", sampling.presence_penalty, -2, 2),
        ("n", sampling.n, 1, limits.max_answers),
        ("top_logprobs", sampling.top_logprobs, 0, _MOST_LOGPROBS),
    )
    for name, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            return f"invalid_{name}", f"sampling.{name} is {value}; it must be from {low} to {high}"
    for name, number in (("max_completion_tokens", sampling.max_completion_tokens), ("top_k", sampling.top_k)):
        if number is not None and number < 1:
            return f"invalid_{name}", f"sampling.{name} must be at least 1"
    if sampling.top_p == 0:
        return (
            "invalid_top_p",
            "sampling.top_p is 0, which leaves no token to draw; for the likeliest one set temperature to 0",
        )
    if problem := _stop_problem(sampling.stop, limits):
        return "invalid_stop", problem
    if sampling.regex is not None and sampling.response_format is not None:
        return "invalid_regex", (
            "sampling.regex and sampling.response_format cannot both hold for one answer; leave one of them out"
        )
    return _schema_problem(sampling.response_format, limits) or _regex_problem(sampling.regex, limits)


def _stop_problem(stop: list[str], limits: Limits) -> str | None:
    if len(stop) > limits.max_stops:
        return f"sampling.stop has {len(stop)} strings, more than the {limits.max_stops} allowed"
    if not all(stop):
        return "sampling.stop has an empty string, which would end every answer before it begins; leave it out"
    if (size := sum(len(each.encode("utf-8", "surrogatepass")) for each in stop)) > limits.max_stop_bytes:
        return f"sampling.stop is {size:,} bytes, more than the {limits.max_stop_bytes:,} allowed"
    return None


def _regex_problem(regex: str | None, limits: Limits) -> tuple[str, str] | None:
    """Return code and reason where ``regex`` is nothing an engine could hold a model to in time linear in the answer."""
    if regex is None:
        return None
    if (size := len(regex.encode("utf-8", "surrogatepass"))) > limits.max_regex_bytes:
        return "regex_too_large", f"sampling.regex is {size:,} bytes, more than the {limits.max_regex_bytes:,} allowed"
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_MEMORY
    try:
        re2.compile(regex, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        cause = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        return "invalid_regex", (
            f"sampling.regex is no RE2 expression: {cause}; RE2 has no look-around and no back-references"
        )
    if not regex:
        return "invalid_regex", "sampling.regex is empty, so the answer would be; leave it out"
    return None


def _schema_problem(schema: str | None, limits: Limits) -> tuple[str, str] | None:
    if schema is None:
        return None
    if (size := len(schema.encode("utf-8", "surrogatepass"))) > limits.max_schema_bytes:
        return "response_format_too_large", (
            f"sampling.response_format is {size:,} bytes, more than the {limits.max_schema_bytes:,} allowed"
        )
    try:
        msgspec.json.decode(schema, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        return "invalid_response_format", f"sampling.response_format is no JSON schema, a JSON object: {error}"
    return None
