"""Release a streamed answer piece by piece: how far it has come, and the events that each piece of it gives. Pure but for
the clock that it is handed; what may be released is decided in piece_judging.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec
from penstock.bus import Emit
from penstock.contracts.digest import extended_digest
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import CompletionChunk, ResultChunk

from services.guardrails.core import canary_of, reference_of
from services.guardrails.masking import named, restore
from services.guardrails.piece_judging import Asked, Decision, PieceJudge, StreamState, decide, looking_back
from services.guardrails.policy import CompiledPolicy
from services.guardrails.screening import Screening
from services.guardrails.verdicts import Judged, verdicts

__all__ = ["PieceJudge", "StreamState", "cut", "step"]

_RUN_BEFORE = re.compile(r"\S+\Z")
_RUN_AFTER = re.compile(r"\S+")


def step(
    state: StreamState | None, chunk: CompletionChunk, judge: PieceJudge, now: datetime
) -> tuple[StreamState, list[Emit]]:
    """Take the next piece of an answer; return the state and what may be released: verdict first, then the piece.

    The same piece again adds nothing. An answer that is generated again is followed from where the first one ended if
    its words are the same; if they are not, if pieces are missing, or if the state was lost, the stream ends with
    finish_reason "error". A rule that stops an answer ends it with "content_filter", in front of what it found; one that
    was cancelled ends with "cancelled". Whatever was not released by then never is.
    """
    if state is not None and state.ended:
        return state, []
    if state is None:
        if chunk.offset or chunk.sequence:
            lost = StreamState(sequence=chunk.sequence)
            return cut(lost, chunk, judge, "what was known of the stream is lost: read the result instead", now)
        state = StreamState(_asked(chunk, judge))
    if chunk.finish_reason == "error":
        return cut(state, chunk, judge, "the model broke off", now)
    if chunk.finish_reason == "cancelled":
        return cut(state, chunk, judge, "the request was cancelled", now, finish_reason="cancelled")
    text, problem = _news(state, chunk)
    if problem is not None:
        return cut(state, chunk, judge, problem, now)
    if judge.policy is None:
        reason = f"the policy {chunk.context.policy_name!r} is not published; run `penstock config apply`"
        return cut(state, chunk, judge, reason, now)
    last = chunk.finish_reason is not None
    if not text and not last:
        return state, []
    state = msgspec.structs.replace(
        state,
        received=state.received + len(text),
        digest=extended_digest(state.digest, text),
        held=state.held + text,
    )
    calls_tools = chunk.finish_reason == "tool_calls"
    decision = decide(state, judge, judge.policy, last=last, calls_tools=calls_tools)
    if isinstance(decision, str):
        return cut(state, chunk, judge, decision, now)
    return (state, []) if decision is None else _released(state, chunk, decision, judge, now)


def cut(
    state: StreamState,
    chunk: CompletionChunk,
    judge: PieceJudge,
    reason: str,
    now: datetime,
    *,
    finish_reason: str = "error",
) -> tuple[StreamState, list[Emit]]:
    """End the stream with nothing more of it released, and say why in the verdict."""
    screening = Screening("block", ("",), errors={"stream": reason})
    policy = judge.policy or CompiledPolicy(chunk.context.policy_name, "", {"output": ()})
    judged = Judged(screening, policy, judge.key, now)
    return _ended(state, state.sequence + 1), _emits(state, chunk, "", finish_reason, judged)


def _news(state: StreamState, chunk: CompletionChunk) -> tuple[str, str | None]:
    """What ``chunk`` adds to the answer, and what is wrong with it."""
    known = state.received - chunk.offset
    if known < 0:
        return "", f"{-known} characters of the answer are missing: read the result instead"
    if known > len(chunk.content):
        if chunk.finish_reason is None:
            return "", None
        return "", "the answer was generated again and ended earlier: read the result instead"
    if extended_digest(chunk.preceding, chunk.content[:known]) != extended_digest(state.digest, ""):
        return "", "the answer was generated again with other words: read the result instead"
    return chunk.content[known:], None


def _released(
    state: StreamState, chunk: CompletionChunk, decision: Decision, judge: PieceJudge, now: datetime
) -> tuple[StreamState, list[Emit]]:
    assert judge.policy is not None
    finish = "content_filter" if decision.stop else chunk.finish_reason
    # What goes on with an address of which the beginning is out keeps its pseudonyms: the whole is not seen here.
    inside = _inside_address(state.context, decision.text)
    content = decision.text[:inside] + restore(
        decision.text[inside:],
        {name: value for name, value in judge.pseudonyms.items() if name[1:-1].lower() not in state.asked.ambiguous},
        state.asked.prompt,
        in_json=any(rule.enforced and rule.json_schema is not None for _, rule in judge.policy.stages["output"]),
    )
    emits: list[Emit] = []
    if content or finish is not None:
        judged = Judged(decision.screening, judge.policy, judge.key, now)
        emits = _emits(state, chunk, content, finish, judged)
    sequence = state.sequence + bool(emits)
    if finish is not None:
        return _ended(state, sequence), emits
    done = state.held[: decision.taken]
    numbering = decision.numbering.seen(done)
    persons = (finding.value for finding in decision.screening.findings if finding.kind == "PERSON")
    return msgspec.structs.replace(
        state,
        context=looking_back(state.context + done),
        held=state.held[decision.taken :],
        sequence=sequence,
        highest=dict(numbering.highest),
        names=[(*value, name) for value, name in numbering.names.items()],
        persons=tuple(dict.fromkeys([*state.persons, *persons])),
    ), emits


def _inside_address(context: str, text: str) -> int:
    """How many characters of ``text`` go on with an address that ends ``context``, as it may where no space is written."""
    run = _RUN_BEFORE.search(context)
    if run is None or ("//" not in run.group() and len(run.group()) < len(context)):
        return 0
    after = _RUN_AFTER.match(text)
    return after.end() if after else 0


def _emits(state: StreamState, chunk: CompletionChunk, content: str, finish: str | None, judged: Judged) -> list[Emit]:
    """The verdict and the piece that it stands for."""
    sequence = state.sequence
    piece = ResultChunk(
        # Not by the chunk alone: one that was generated again has the same identity, and may have grown.
        **derive(chunk, "guardrails.piece", sequence, judged.now),
        context=chunk.context,
        sequence=sequence,
        content=content,
        finish_reason=finish,
    )
    key = request_key(chunk.context, chunk.request_id)
    told = verdicts(chunk, "piece", judged, piece, ordinal=sequence, sequence=sequence)
    return [*told, Emit("result-chunks", key, piece)]


def _ended(state: StreamState, sequence: int) -> StreamState:
    return StreamState(received=state.received, digest=state.digest, sequence=sequence, ended=True)


def _asked(chunk: CompletionChunk, judge: PieceJudge) -> Asked:
    canary = canary_of(judge.key, chunk.request_id) if judge.policy and judge.policy.canary else ""
    reference = reference_of(chunk.messages, chunk.passages, canary)
    output = judge.policy.stages["output"] if judge.policy else ()
    grounded = any(scanner.name == "groundedness" for scanner, _ in output)
    return Asked(
        system_prompt=reference.system_prompt,
        prompt=reference.prompt,
        question=reference.question,
        # Kept with every piece, so only where somebody reads them.
        passages=reference.passages if grounded else (),
        urls=tuple(sorted(reference.urls)),
        canary=canary,
        ambiguous=tuple(sorted(named(f"{passage.title}\n{passage.text}" for passage in chunk.passages))),
    )
