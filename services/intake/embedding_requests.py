"""Requests for the vectors of texts (purpose "embed"): what they must be to be admitted. Pure.

Their messages are the texts, each of the user. No model of a route is called for them: the route says under which policy
they are screened and how long they may take.
"""

from __future__ import annotations

from penstock.config.kinds import Team
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import LlmRequest

from services.intake.validity import Limits

__all__ = ["embedder_problem", "embedding_problem"]


def embedder_problem(team: Team, embedder: str) -> tuple[str, str] | None:
    """Return code and reason where the team may not use the model that makes vectors; else None."""
    if "*" in team.allowed_models or embedder in team.allowed_models:
        return None
    return "model_not_allowed", (
        f"team {team.name!r} may not use {embedder!r}, which embeds; its allowed_models are: "
        f"{', '.join(team.allowed_models) or 'none'}. Have it added there"
    )


def embedding_problem(request: LlmRequest, limits: Limits) -> tuple[str, str] | None:
    """Return code and reason where ``request`` asks for nothing that can be embedded; else None."""
    if request.prompt_name is not None:
        return "invalid_prompt", "vectors are of messages as they are; leave prompt_name out"
    if request.stream:
        return "invalid_stream", "vectors come in one piece; leave stream out"
    messages = request.messages
    if not messages:
        return "no_messages", "the request has no messages; send each text to embed as a message of the user"
    if len(messages) > limits.max_inputs:
        return "too_many_inputs", (
            f"{len(messages):,} texts are more than the {limits.max_inputs:,} one request may have embedded; send fewer"
        )
    for index, message in enumerate(messages):
        if message.role != "user" or message.tool_calls:
            return "invalid_role", (
                f"messages[{index}] is of {message.role!r}; what is to be embedded is sent as messages of the user"
            )
        if not message.content:
            return "invalid_input", f"messages[{index}] has no text to embed; leave it out"
    size = sum(map(message_bytes, messages))
    if size > limits.max_embedding_bytes:
        return "input_too_large", (
            f"the texts are {size:,} bytes, more than the {limits.max_embedding_bytes:,} that one request may have "
            "embedded; send them in several"
        )
    return None
