"""What a message says beside its content: every text of it counts, is paid for and is screened. Pure."""

from __future__ import annotations

from penstock.contracts.records import Message

__all__ = ["message_bytes", "message_texts"]


def message_texts(message: Message) -> list[str]:
    """Return all texts of ``message``: content, name, the tools it calls with their arguments, the call it answers."""
    return [
        message.content,
        *([message.name] if message.name else []),
        *(text for call in message.tool_calls for text in (call.id, call.name, call.arguments)),
        *([message.tool_call_id] if message.tool_call_id else []),
    ]


def message_bytes(message: Message) -> int:
    """Return the bytes of all texts of ``message`` in UTF-8: no byte-level tokenizer makes more tokens of them."""
    return sum(_size(text) for text in message_texts(message))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
