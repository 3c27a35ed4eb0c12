"""Conversations to tokens: the prompt as the engine makes it with the chat template, and the answer after it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.inference.finetune.dataset import Example

__all__ = ["Encoded", "Tokenizer", "encoded"]


class Tokenizer(Protocol):
    """What is needed of a tokenizer of transformers."""

    eos_token: str | None
    eos_token_id: int | None

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any:
        """Return the text of a conversation."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the tokens of a text."""
        ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as tokens.

    Attributes:
        tokens: prompt and answer.
        answer_from: index of the answer's first token: those before are not learned.
        weight: how much a token of the answer counts.
    """

    tokens: Sequence[int]
    answer_from: int
    weight: float

    @property
    def answer_tokens(self) -> int:
        """Tokens that are learned."""
        return len(self.tokens) - self.answer_from


def encoded(
    tokenizer: Tokenizer, examples: Sequence[Example], *, max_tokens: int, refusal: type[Exception] | None = None
) -> tuple[list[Encoded], Mapping[str, int]]:
    """Return the examples as tokens, and how many are left out, by the reason.

    Prompt and answer are cut into tokens apart, as they are when the model is served: the prompt stands before there is an
    answer. The answer ends as the template ends it, with the token that stops the generation at the least.

    Args:
        tokenizer: of the base model, with a chat template.
        examples: what is learned from.
        max_tokens: examples with more are left out: an answer that is cut off teaches to break off.
        refusal: what the chat template raises for conversations that it does not know how to write, such as one with a
            system message: they are left out.
    """
    refusals = () if refusal is None else (refusal,)
    found: list[Encoded] = []
    left_out: Counter[str] = Counter()
    for example in examples:
        messages = example.conversation.prompt
        answered = [*messages, {"role": "assistant", "content": example.conversation.answer}]
        try:
            prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            whole: str = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=False)
        except refusals as error:
            left_out[f"refused by the chat template: {error}"] += 1
            continue
        # Templates that rewrite earlier turns (hidden reasoning) do not begin as the prompt does.
        answer = whole[len(prompt) :] if whole.startswith(prompt) else example.conversation.answer
        first = tokenizer.encode(prompt, add_special_tokens=False)
        second = tokenizer.encode(answer, add_special_tokens=False)
        if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in second:
            second = [*second, tokenizer.eos_token_id]
        if len(first) + len(second) > max_tokens:
            left_out[f"longer than {max_tokens} tokens"] += 1
        else:
            found.append(Encoded([*first, *second], len(first), example.weight))
    return found, dict(left_out)
