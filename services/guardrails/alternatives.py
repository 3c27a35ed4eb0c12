"""What leaves beside an answer: its alternatives, each judged by itself, and the log-probabilities of tokens. Pure.

Tokens say more than the text they make: those of a masked word spell it, and the likeliest ones in a place are words that
nobody judged. So they leave only with a text that is released character for character as the model said it, in which no
scanner found anything; the likeliest ones in addition only where none finds anything in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from penstock.bus import Emit
from penstock.contracts.records import Alternative, Completion, TokenLogprob, ToolCall

from services.guardrails.screening import Screening
from services.guardrails.tool_texts import masked_call, restored_call
from services.guardrails.verdicts import Judged, verdicts

__all__ = [
    "RELEASING", "Beside", "is_untouched", "likeliest_texts", "released_alternatives", "released_calls",
    "released_logprobs",
]  # fmt: skip

RELEASING = frozenset({"allow", "flag", "pseudonymise", "hash", "mask"})
"""Actions after which an answer is released at once."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What was judged beside an answer.

    Attributes:
        alternatives: the judgement of each alternative, in their order.
        clear: of the answer, then of each alternative: no scanner found anything in the likeliest tokens in its places.
    """

    alternatives: tuple[Judged, ...] = ()
    clear: tuple[bool, ...] = (False,)


def is_untouched(screening: Screening, said: str) -> bool:
    """Return whether no scanner found anything in ``said``, and none failed: not even a rule in shadow."""
    return (
        screening.action == "allow" and not screening.findings and not screening.errors and screening.texts[0] == said
    )


def likeliest_texts(tokens: Sequence[TokenLogprob]) -> list[str]:
    """Return the texts that the likeliest tokens make: the first of every place, the second of every place, and so on.

    A place that has fewer stands there with its own token.
    """
    ranked = [[token for token, _ in sorted(each.top.items(), key=lambda one: -one[1])] for each in tokens]
    most = max(map(len, ranked), default=0)
    return [
        "".join(top[rank] if rank < len(top) else each.token for each, top in zip(tokens, ranked, strict=True))
        for rank in range(most)
    ]


def released_logprobs(
    tokens: Sequence[TokenLogprob], screening: Screening, said: str, released: str, *, clear: bool
) -> list[TokenLogprob]:
    """Return the tokens that may leave with ``released``, which the model said as ``said``; none where they may not.

    Tokens behind the text (of its end, of a stop sequence that was cut off) stay here. Tokens that do not make the text, as
    those of half a character, all do.

    Args:
        clear: the likeliest tokens may leave too.
    """
    if not tokens or released != said or not is_untouched(screening, said):
        return []
    position, kept = 0, 0
    for each in tokens:
        if position == len(said) or not said.startswith(each.token, position):
            break
        position += len(each.token)
        kept += 1
    if position != len(said):
        return []
    return [each if clear else msgspec.structs.replace(each, top={}) for each in tokens[:kept]]


def released_calls(calls: Sequence[ToolCall], texts: Sequence[str], restored: Callable[[str], str]) -> list[ToolCall]:
    """Return the calls as they are released: with what was masked in ``texts``, in their order, and without pseudonyms."""
    return [restored_call(masked_call(call, text), restored) for call, text in zip(calls, texts, strict=True)]


def released_alternatives(
    completion: Completion, beside: Beside, restored: Callable[[str], str], called: Callable[[str], str]
) -> tuple[list[Alternative], list[Emit]]:
    """Return the alternatives that are released, and the verdict on each of all; one that is not acceptable is left out.

    Nobody asks for one again, and no person is asked about it.

    Args:
        restored: puts back what the pseudonyms of a released text stand for.
        called: the same for a text that stands in the arguments of a tool.
    """
    released: list[Alternative] = []
    emits: list[Emit] = []
    for number, (alternative, judged) in enumerate(zip(completion.alternatives, beside.alternatives, strict=True), 1):
        screening, out = judged.screening, None
        if screening.action in RELEASING:
            content = restored(screening.texts[0])
            logprobs = released_logprobs(
                alternative.logprobs, screening, alternative.content, content, clear=beside.clear[number]
            )
            calls = released_calls(alternative.tool_calls, screening.texts[1:], called)
            out = msgspec.structs.replace(alternative, content=content, logprobs=logprobs, tool_calls=calls)
            released.append(out)
        emits += verdicts(completion, "alternative", judged, out, ordinal=number, sequence=number)
    return released, emits
