"""The semantic cache, as plain functions: which questions may share an answer, which answers are worth keeping. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from penstock.config.kinds import Route
from penstock.contracts.records import (
    CachedAnswer,
    Completion,
    LlmResult,
    Message,
    Passage,
    Purpose,
    ScreenedRequest,
    Status,
    Usage,
)
from penstock.text.marker import unmarked

from services.retrieval.core import Grounding
from services.retrieval.question_form import difference, is_of_the_moment

__all__ = [
    "SHADOW_FLOOR", "Asked", "Candidate", "Earlier", "Entry", "Given", "agree", "asked_of", "cached_answer", "entry_id",
    "given_of", "is_as_given", "may_take_part", "released_digest", "same_question",
]  # fmt: skip

SHADOW_FLOOR = 0.8
"""Cosine from which a route in shadow compares answers: below its threshold, too, so that figures tell where to set it."""
_PENDING_S = 3600.0
"""Seconds that an answer is waited for: one that comes later, from a review, is not kept."""
_LARGEST_QUESTION = 1_000
"""Characters: about what the packaged embedder reads at once. The vector of a longer text is a mean over its parts, in
which a part that differs hardly shows."""
_LARGEST_ANSWER = 32 * 1024
_AGREE_COSINE = 0.85
"""Two answers to one question of which one only adds to the other have 0.85 and more, by the packaged embedder."""
_NAMESPACE = uuid.UUID("0e0a3fd1-5c8e-5a0b-9f5a-2f6f6c1f7b9d")
_NUMBERED = re.compile(r"\[(\d{1,3})\]")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_INNER_WORD = re.compile(r"(?<=[^\s.!?:*#>-] )[^\W\d_][\w'-]*")
_NEGATED = re.compile(r"\b(?:not|never|no|none|nothing|cannot|without)\b|n't\b")


@dataclass(frozen=True, slots=True)
class Earlier:
    """Whose answer a request in shadow would have got, or nearly. It is compared with the one that comes, if it is still
    kept then: no copy of it stands elsewhere, so that its erasure is one.
    """

    request_id: str
    similarity: float
    hit: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way, as it is kept until its answer is there. Instants are seconds since 1970.

    Attributes:
        scope: hash of all that an answer depends on beside the question; see :func:`asked_of`.
        passages: ids of the passages attached, in their order; documents: whose they are.
        earlier: what it would have got instead, where the route is in shadow.
        keep: whether its answer is to be kept, or only compared.
    """

    team: str
    request_id: str
    scope: str
    question: str
    route: str
    user_id: str | None
    passages: tuple[str, ...]
    documents: tuple[str, ...]
    expires_at: float
    earlier: Earlier | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as the model gave it."""

    event_id: str
    content: str
    citations: tuple[str, ...]
    model: str
    backend: str
    request_model: str | None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Entry:
    """A question with its answer. ``released`` is the digest of what guardrails let through; None: not yet known."""

    asked: Asked
    given: Given | None = None
    released: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it may be given again: there is an answer, and it left as the model gave it."""
        return self.asked.keep and self.given is not None and self.released == released_digest(self.given.content)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An entry that a search found, and the cosine of the two questions."""

    entry: Entry
    cosine: float


def entry_id(team: str, request_id: str) -> str:
    """Return the id of the entry of a request: the same however often it is read."""
    return str(uuid.uuid5(_NAMESPACE, f"{team}\n{request_id}"))


def may_take_part(request: ScreenedRequest) -> bool:
    """Return whether ``request`` may be answered from the cache, and its answer be kept.

    Whoever asks for several answers, for probabilities, or gives tools, gets what the model says; so does whatever is no
    traffic. A question of the moment has another answer tomorrow.
    """
    sampling = request.sampling
    if sampling.n > 1 or sampling.top_logprobs is not None or sampling.tools is not None:
        return False
    question = _question_at(request.messages)
    if question is None or request.context.purpose != Purpose.SERVE:
        return False
    text = request.messages[question].content.strip()
    return 0 < len(text) <= _LARGEST_QUESTION and not is_of_the_moment(text)


def _question_at(messages: Sequence[Message]) -> int | None:
    return next((n for n in reversed(range(len(messages))) if messages[n].role == "user"), None)


def asked_of(request: ScreenedRequest, route: Route, grounding: Grounding, now_s: float) -> Asked | None:
    """Return ``request`` as the cache sees it; None where it takes no part.

    Questions share answers within one scope only: team, route with its targets and its way of retrieval, versions of prompt
    and policy, embedder, filter of the documents, parameters of generation, and every message but the question. The
    prompt's marker, another one in each request, is not part of it.

    A request whose passages could not be looked for is not compared: its answer is not what it would be.
    """
    last, context = _question_at(request.messages), request.context
    if last is None or grounding.embedder is None or grounding.state == "unavailable" or not may_take_part(request):
        return None
    scope = msgspec.msgpack.encode((
        1,
        request.tenant_id,
        (route.name, [(target.backend, target.model, target.base_url) for target in route.targets]),
        route.retrieval.model_dump_json(),
        (context.policy_name, context.policy_version),
        (context.prompt_name, context.prompt_version),
        grounding.embedder,
        request.retrieval,
        request.sampling,
        [(message.role, "" if n == last else _told(message)) for n, message in enumerate(request.messages)],
    ))  # fmt: skip
    return Asked(
        team=request.tenant_id,
        request_id=request.request_id,
        scope=hashlib.sha256(scope).hexdigest(),
        question=request.messages[last].content.strip(),
        route=route.name,
        user_id=context.user_id,
        passages=tuple(passage.passage_id for passage in grounding.passages),
        documents=tuple(sorted({passage.document_id for passage in grounding.passages})),
        expires_at=now_s + _PENDING_S,
    )


def same_question(
    asked: Asked, candidates: Sequence[Candidate], floor: float, now_s: float, differs: Callable[[str], None]
) -> Candidate | None:
    """Return the nearest of ``candidates`` whose answer is one to ``asked``, too; None where there is none.

    Its cosine reaches ``floor``, it comes to the same form (:mod:`services.retrieval.question_form`), and what its answer
    stands on is attached to ``asked``, too: the passage that was found first, every passage that it quotes, and in the same
    place what it refers to by number. A chunk's id follows from its text, so that evidence which has changed is not the
    same. Team and scope are compared once more: no store is trusted with that.

    Args:
        differs: told what tells a question apart that is as near as ``floor``: as :func:`difference` says it, or
            ``evidence``.
    """
    for candidate in sorted(candidates, key=lambda each: (-each.cosine, each.entry.asked.request_id)):
        entry, earlier = candidate.entry, candidate.entry.asked
        if candidate.cosine < floor:
            return None
        if (earlier.team, earlier.scope) != (asked.team, asked.scope) or earlier.request_id == asked.request_id:
            continue
        if not entry.is_complete or entry.given is None or earlier.expires_at <= now_s:
            continue
        reason = difference(asked.question, earlier.question)
        if reason is None and not _on_same_evidence(entry.given, earlier.passages, asked.passages):
            reason = "evidence"
        if reason is None:
            return candidate
        differs(reason)
    return None


def _on_same_evidence(given: Given, earlier: Sequence[str], now: Sequence[str]) -> bool:
    if earlier[:1] != now[:1] or not set(given.citations) <= set(now):
        return False
    numbers = {int(number) for number in _NUMBERED.findall(given.content)}
    return all(n <= len(now) and earlier[n - 1] == now[n - 1] for n in numbers if 0 < n <= len(earlier))


def cached_answer(candidate: Candidate, passages: Sequence[Passage]) -> CachedAnswer:
    """Return the answer of ``candidate`` as it travels with a request that has ``passages``."""
    given = candidate.entry.given
    if given is None:
        raise ValueError("an entry without an answer cannot be given again")
    attached = {passage.passage_id for passage in passages}
    return CachedAnswer(
        event_id=given.event_id,
        request_id=candidate.entry.asked.request_id,
        similarity=round(min(1.0, candidate.cosine), 6),
        content=given.content,
        citations=[passage_id for passage_id in given.citations if passage_id in attached],
        model=given.model,
        backend=given.backend,
        request_model=given.request_model,
        usage=given.usage,
    )


def given_of(completion: Completion) -> Given | None:
    """Return the answer of ``completion`` as it is kept; None where it is none that ended by itself at the first attempt,
    was given by a cache, calls tools, or is very long.
    """
    if completion.kind != "completion" or completion.cached_by is not None or completion.attempt > 0:
        return None
    if completion.error is not None or completion.finish_reason != "stop" or completion.tool_calls:
        return None
    if not completion.content or len(completion.content) > _LARGEST_ANSWER or completion.alternatives:
        return None
    return Given(
        event_id=completion.event_id,
        content=completion.content,
        citations=tuple(completion.citations),
        model=completion.model,
        backend=completion.backend,
        request_model=completion.request_model,
        usage=completion.usage,
    )


def is_as_given(result: LlmResult) -> bool:
    """Return whether ``result`` is an answer that guardrails had nothing to say about."""
    if result.status != Status.COMPLETED or result.action != "allow" or result.cached_by is not None:
        return False
    return result.finish_reason == "stop" and not result.tool_calls and not result.alternatives


def released_digest(content: str) -> str:
    """Return what tells whether a text left as the model gave it: with pseudonyms taken back it is another person's data."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def agree(earlier: str, now: str, cosine: float) -> bool:
    """Return whether two answers to one question say the same: the same text, or near by their embeddings with the same
    numbers, names and negation. Where in doubt they do not, so that a rate of false hits is rather too high.
    """
    if _plain(earlier) == _plain(now):
        return True
    return cosine >= _AGREE_COSINE and _facts(earlier) == _facts(now)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _facts(text: str) -> tuple[frozenset[str], frozenset[str], bool]:
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'")
    names = frozenset(word for word in _INNER_WORD.findall(text) if word[0].isupper())
    return frozenset(_numbers(text)), names, _NEGATED.search(text.casefold()) is not None


def _numbers(text: str) -> Iterable[str]:
    return (number.replace(",", "") for number in _NUMBER.findall(_NUMBERED.sub("", text)))


def _told(message: Message) -> tuple[Any, ...]:
    content = unmarked(message.content)[0] if message.role == "system" else message.content
    return content, message.name, message.tool_calls, message.tool_call_id
