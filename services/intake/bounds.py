"""The most that a request can cost, and what is held for it in each hard budget. Pure.

Tokens are bounded by bytes: a byte-level tokenizer makes at most one token of a byte, and every other one fewer. What a
request becomes on its way to the model is counted with it: the passages that retrieval attaches, the words around them,
pseudonyms in place of personal data, the model's chat template, and the second call where guardrails ask again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from penstock.config.budgets import Budget
from penstock.config.kinds import Policy, Price, Retrieval, Route, Target
from penstock.contracts.messages import message_bytes
from penstock.contracts.records import Context, Message
from penstock.money import Subject, from_pico, pico, subjects, worst_case
from penstock.money.bounds import BYTES_A_TOKEN

__all__ = [
    "EMBEDDING", "Call", "Hold", "Prices", "Unpriced", "calls_of", "embedding_calls", "hard_budgets", "holds_of", "total",
]  # fmt: skip

EMBEDDING = "embedding"
"""Slot of what is embedded: a question, or the texts of a request for vectors. Those of model calls are their attempts."""

# A chat template puts a role and separators around each message: 3 tokens in OpenAI's, 5 in Llama's, 7 in harmony's.
_TOKENS_A_MESSAGE = 16
# And once a preamble of its own: a default system message (Qwen, 20), a date and a knowledge cutoff (Llama, 25; harmony
# about 100), the opening of the answer.
_TOKENS_A_CALL = 256
# Where there are tools it says how to call them, and shows them one by one (Hermes and Qwen 200, Llama 100).
_TOKENS_OF_TOOLS, _TOKENS_A_TOOL = 512, 16
# Bytes around a passage, its title and text ("[100] " and three line feeds), and of the words that introduce them.
_BYTES_A_PASSAGE = 16
_BYTES_OF_GROUNDING = 256
# What guardrails put in place of a find is longer than a short one: <EMAIL_ADDRESS_12> three times as long as a@b.co, a hash
# (<EMAIL_ADDRESS:0123456789abcdef>) five times.
_GROWTH: Mapping[str, int] = {"pseudonymise": 4, "mask": 4, "hash": 6}
# What guardrails write when they ask again: a sentence around the reason, which names a scanner.
_BYTES_OF_ASKING_AGAIN = 1024
# Inference tries a target up to three times within one call, with waits of some seconds between.
_TRIES = 3
_WAITS_S = 10.0
# How far the clocks of intake and inference may be apart: the price in force at the end of a call is by the latter.
_CLOCKS_DIFFER = timedelta(minutes=5)
# Retrieval embeds at most so many characters of the question, 4 bytes each; windows add two tokens to every 254.
_QUESTION_BYTES = 4 * 8_001
_TOKENS_A_WINDOW, _WINDOW = 2, 254


class Prices(Protocol):
    """The part of the config plane that prices a call to come."""

    def prices(self, model: str, since: datetime, until: datetime) -> list[Price]: ...


class Unpriced(Exception):
    """A target has no price, now or for some of the time in which it may be called; ``model`` is its."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} has no price")
        self.model = model


@dataclass(frozen=True, slots=True)
class Call:
    """An answer that a request may ask for, of one target after another. ``worst`` is the most it can cost at each model,
    pico-USD: a target that breaks off is paid for, as is the next one."""

    slot: str
    worst: Mapping[str, int]

    @property
    def all(self) -> int:
        """Pico-USD of all its models together."""
        return sum(self.worst.values())


@dataclass(frozen=True, slots=True)
class Hold:
    """What a request holds in one counter: pico-USD by slot."""

    subject: Subject
    amounts: Mapping[str, int] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """Pico-USD of all its calls together."""
        return sum(self.amounts.values())


def hard_budgets(budgets: Sequence[Budget]) -> list[Budget]:
    """Return those that admission keeps."""
    return [budget for budget in budgets if budget.mode == "hard"]


def calls_of(
    messages: Sequence[Message],
    route: Route,
    policy: Policy | None,
    output_tokens: int,
    prices: Prices,
    since: datetime,
    until: datetime,
    embedder: str,
    schema: str = "",
    answers: int = 1,
    tools: str | None = None,
) -> list[Call]:
    """Return the calls that a request may lead to.

    Args:
        messages: rendered, as admitted.
        policy: the guardrail policy that applies, where it is published.
        output_tokens: most tokens of one answer; the request must carry it.
        since: now.
        until: the last instant at which a call may begin. Every price in force until it has ended counts.
        embedder: name of the embedding model. Where it has no price, nothing is held for it.
        schema: JSON schema or expression that the answer is asked to follow, which a backend may put into its prompt.
        answers: answers that are asked for, each of up to ``output_tokens``.
        tools: that the model may call, as JSON.

    Raises:
        Unpriced: a target of the route has no price: the canary's and the shadows' count as well.
    """
    # One target after another may be tried.
    until += timedelta(seconds=sum(_longest(target) for target in route.all_targets))
    growth = _growth(policy)
    generated = answers * output_tokens
    question = growth * max((message_bytes(message) for message in messages if message.role == "user"), default=0)
    # A template puts as much around a call as around a message.
    shown = len(messages) + sum(len(message.tool_calls) for message in messages)
    first = growth * sum(map(message_bytes, messages)) + _framing(shown, route.retrieval)
    first += len(schema.encode("utf-8", "surrogatepass")) + growth * _tools_tokens(tools)
    answering = [*route.targets, *([route.canary.target] if route.canary else [])]
    inputs = [first]
    if (schema_bytes := _asks_again(policy)) is not None:
        # The same again, with the first answer, and the question once more with why and what is wanted.
        again = output_tokens * BYTES_A_TOKEN + question + schema_bytes + _BYTES_OF_ASKING_AGAIN
        inputs.append(first + again + 2 * _TOKENS_A_MESSAGE)
    calls = [
        Call(
            str(attempt),
            _by_model(
                (target.model, _dearest(prices, target.model, tokens, generated, _longest(target), since, until))
                # Any target may break off and be paid for, the canary too. Shadows answer beside them, and only once.
                for target in (route.all_targets if attempt == 0 else answering)
            ),
        )
        for attempt, tokens in enumerate(inputs)
    ]
    if route.retrieval.enabled and prices.prices(embedder, since, until):
        tokens = _embedded_tokens(min(question, _QUESTION_BYTES))
        calls.append(Call(EMBEDDING, {embedder: _dearest(prices, embedder, tokens, 0, 0.0, since, until)}))
    return calls


def embedding_calls(
    messages: Sequence[Message], policy: Policy | None, embedder: str, prices: Prices, since: datetime, until: datetime
) -> list[Call]:
    """Return what a request for the vectors of ``messages`` leads to; arguments as of :func:`calls_of`.

    Raises:
        Unpriced: the embedder has no price.
    """
    growth = _growth(policy)
    tokens = sum(_embedded_tokens(growth * message_bytes(message)) for message in messages)
    return [Call(EMBEDDING, {embedder: _dearest(prices, embedder, tokens, 0, 0.0, since, until)})]


def holds_of(budgets: Sequence[Budget], context: Context, calls: Sequence[Call]) -> list[Hold]:
    """Return what a request holds in each counter of its hard budgets, in the order of ``budgets``.

    Targets of a route may count in different budgets (one per model): each counter holds all that count in it.
    """
    held: dict[Subject, dict[str, int]] = {}
    for call in calls:
        for model, amount in call.worst.items():
            for subject in subjects(
                hard_budgets(budgets), user=context.user_id, key=context.key_id, model=model, tags=context.tags
            ):
                amounts = held.setdefault(subject, {})
                amounts[call.slot] = amounts.get(call.slot, 0) + amount
    order = {budget.name: place for place, budget in enumerate(budgets)}
    return [
        Hold(subject, amounts)
        for subject, amounts in sorted(held.items(), key=lambda item: (order[item[0].budget.name], item[0].value))
    ]


def total(calls: Sequence[Call]) -> Decimal:
    """Return the most that all ``calls`` together can cost, USD."""
    return from_pico(sum(call.all for call in calls))


def _by_model(worst: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the sums by model: several targets may run the same one."""
    sums: dict[str, int] = {}
    for model, amount in worst:
        sums[model] = sums.get(model, 0) + amount
    return sums


def _dearest(
    prices: Prices, model: str, input_tokens: int, output_tokens: int, seconds: float, since: datetime, until: datetime
) -> int:
    # A price that has ended by this clock may be in force still by that of inference; one that is new was not before.
    early, late = since - _CLOCKS_DIFFER, until + _CLOCKS_DIFFER
    in_force = prices.prices(model, early, late) or prices.prices(model, since, late)
    if not in_force:
        raise Unpriced(model)
    return max(pico(worst_case(price, input_tokens, output_tokens, seconds)) for price in in_force)


def _embedded_tokens(size: int) -> int:
    """Most tokens that are embedded of a text of ``size`` bytes."""
    return size + _TOKENS_A_WINDOW * (size // _WINDOW + 1)


def _longest(target: Target) -> float:
    """Seconds that a call of ``target`` takes at most, every try of it included."""
    return _TRIES * target.timeout_s + _WAITS_S


def _framing(messages: int, retrieval: Retrieval) -> int:
    """Most tokens that stand around the messages: the chat template, and the evidence with its introduction."""
    tokens = _TOKENS_A_CALL + _TOKENS_A_MESSAGE * messages
    if retrieval.enabled:
        tokens += _BYTES_OF_GROUNDING + retrieval.token_budget * BYTES_A_TOKEN + retrieval.top_k * _BYTES_A_PASSAGE
    return tokens


def _tools_tokens(tools: str | None) -> int:
    """Most tokens of tools in a prompt: templates write them as they came, or indented by four (Llama's)."""
    if tools is None:
        return 0
    listed = json.loads(tools)
    indented = json.dumps(listed, indent=4, ensure_ascii=False)
    size = max(len(text.encode("utf-8", "surrogatepass")) for text in (tools, indented))
    return size + _TOKENS_OF_TOOLS + _TOKENS_A_TOOL * len(listed)


def _growth(policy: Policy | None) -> int:
    """How many times as long the messages may get; a policy that is not published yet may do anything to them."""
    if policy is None:
        return max(_GROWTH.values())
    return max((_GROWTH.get(rule.action, 1) for rule in policy.input.values() if rule.mode == "enforce"), default=1)


def _asks_again(policy: Policy | None) -> int | None:
    """Return the bytes of the longest schema that an answer may be asked for again with; None where none ever is.

    A policy that is not published yet may be by the time the answer is there: it counts as one that asks again.
    """
    if policy is None:
        return 0
    rules = [rule for rule in policy.output.values() if rule.mode == "enforce" and rule.action == "ask_again"]
    if not rules:
        return None
    return max(len(str(rule.json_schema).encode()) if rule.json_schema is not None else 0 for rule in rules)
