"""What a line holds to be judged: its texts with their roles, and what an answer is judged against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.guardrails.command.lines import BadLine
from services.guardrails.findings import Reference
from services.guardrails.scanners.leakage import addresses
from services.guardrails.screening import Segment

__all__ = ["TEXT_FIELDS", "Subject", "subject_of"]

TEXT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "input": ("messages", "text", "full_text", "prompt", "content", "question"),
    "output": ("answer", "response", "text", "full_text", "content"),
    "documents": ("text", "full_text", "content", "document", "context", "prompt"),
}
"""Where the text of a line is looked for, in this order."""

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
_STAGE_ROLES = {"input": "user", "output": "answer", "documents": "document"}


@dataclass(frozen=True, slots=True)
class Subject:
    """``segments`` in order; ``conversation`` says that they are messages rather than one text."""

    segments: tuple[Segment, ...]
    reference: Reference
    conversation: bool = False


def subject_of(fields: Mapping[str, Any], stage: str, text_field: str | None = None) -> Subject:
    """What ``fields`` hold to be judged at ``stage``, from ``text_field`` or the first of ``TEXT_FIELDS``.

    Raises:
        BadLine: there is no text, or it has another shape than a text or a list of messages.
    """
    name = text_field or _named(fields, TEXT_FIELDS[stage])
    if name is None or name not in fields:
        wanted = text_field or ", ".join(TEXT_FIELDS[stage])
        raise BadLine(
            f"has no text to judge: none of the fields is called {wanted}; name the one that holds it with --text-field"
        )
    value = fields[name]
    if isinstance(value, list) and stage == "input":
        return Subject(_messages(value, name), Reference(), conversation=True)
    if not isinstance(value, str):
        raise BadLine(f'"{name}" holds no text' + (" and no list of messages" if stage == "input" else ""))
    segment = Segment(value, _STAGE_ROLES[stage])
    return Subject((segment,), _reference(fields, name) if stage == "output" else Reference())


def _named(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if fields.get(name) is not None), None)


def _messages(messages: Sequence[Any], name: str) -> tuple[Segment, ...]:
    segments = []
    for index, message in enumerate(messages):
        where = f'"{name}"[{index}]'
        if not isinstance(message, dict):
            raise BadLine(f'{where} is no message: write {{"role": "user", "content": "..."}}')
        role = _ROLES.get(str(message.get("role", "user")))
        if role is None:
            raise BadLine(f"{where} has the role {message.get('role')!r}; there are {', '.join(_ROLES)}")
        segments.append(Segment(_content(message.get("content"), where), role))
    if not segments:
        raise BadLine(f'"{name}" holds no message')
    return tuple(segments)


def _content(content: Any, where: str) -> str:
    """The text of a message; parts that are texts are joined by a line feed, pictures and sounds are not judged."""
    if content is None:  # a call of a tool
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise BadLine(f"the content of {where} is neither a text nor a list of parts")


def _reference(fields: Mapping[str, Any], judged: str) -> Reference:
    """What an answer is judged against: ``question`` or ``prompt``, ``messages``, ``context`` or ``passages``,
    ``system_prompt`` and ``canary``, as far as they are there.
    """
    messages: Sequence[Segment] = ()
    if isinstance(value := fields.get("messages"), list) and value:
        messages = _messages(value, "messages")
    asked = next((segment.text for segment in reversed(messages) if segment.role == "user"), "")
    question = _text(fields, "question") or (_text(fields, "prompt") if judged != "prompt" else "") or asked
    system = _text(fields, "system_prompt") or "\n".join(s.text for s in messages if s.role == "system")
    passages = tuple(
        text
        for name in ("context", "passages")
        if name != judged
        for passage in _listed(fields.get(name))
        if (text := _passage(passage, name))
    )
    prompt = "\n".join(segment.text for segment in messages) or "\n".join(filter(None, (system, question)))
    return Reference(
        system_prompt=system,
        prompt=prompt,
        question=question,
        passages=passages,
        urls=addresses("\n".join([prompt, *passages])),
        canary=_text(fields, "canary"),
    )


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or value != value:  # NaN: how tables of data write what is absent
        return ""
    if not isinstance(value, str):
        raise BadLine(f'"{name}" holds no text')
    return value


def _listed(value: Any) -> Sequence[Any]:
    if value is None or value != value:
        return ()
    return value if isinstance(value, list) else [value]


def _passage(value: Any, name: str) -> str:
    if isinstance(value, dict):
        value = value.get("text", value.get("content"))
    if not isinstance(value, str):
        raise BadLine(f'"{name}" holds a passage that is no text')
    return value
