"""Rated conversations, whole: what a model was asked with which evidence, what it should answer, how well it is rated.

Rows are what adapters are trained on. The same rows are written as JSON lines and as Parquet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import re2
from penstock.contracts.records import LogRange
from penstock.text.patterns import encodable

from services.evaluation.feedback.log import Case

__all__ = ["LOG_METADATA", "conversation", "parquet_of", "screened_answer"]

LOG_METADATA = b"penstock.log"
"""Key of the topic offsets in the metadata of a Parquet file: JSON, a list of LogRange."""

_PSEUDONYM = re.compile(r"<[A-Za-z][A-Za-z0-9_:+\-]{0,63}_\d{1,6}>")
"""How guardrails name what they took out of a request, e.g. <PERSON_1>."""


def screened_answer(case: Case) -> str | None:
    """Return the released answer of a case without the personal data that was put back into it.

    Where a policy gives requests pseudonyms, the released answer has the data again, and the completion has it not. Its text
    is taken where that is the only difference between the two: nothing then was masked in the answer itself.

    Returns:
        The answer; None where there is no telling what was put back.
    """
    assert case.result is not None
    released, completion = case.result.content, case.completion
    texts = [] if completion is None else [completion.content, *(each.content for each in completion.messages)]
    if not any(_PSEUDONYM.search(text) for text in [case.result.prompt, released, *texts]):
        return released
    if completion is None:
        return None
    options = re2.Options()
    options.log_errors, options.dot_nl = False, True
    literal = [re2.escape(part) for part in _PSEUDONYM.split(encodable(completion.content))]
    try:
        same = re2.fullmatch(".+".join(literal), encodable(released), options)
    except re2.error:  # an answer too long for one expression
        return None
    return completion.content if same else None


def conversation(
    case: Case, messages: Sequence[Mapping[str, str]], answer: str, rating: float | None, *, corrected: bool
) -> dict[str, Any]:
    """Return the row of a case.

    Args:
        case: a case with its result.
        messages: what was answered, as OpenAI's chat API writes it.
        answer: what the model should say: the correction, or the released answer.
        rating: mean rating of the released answer, 0 to 1; None where only a correction was given.
        corrected: whether ``answer`` is a correction.
    """
    assert case.result is not None
    context, completion = case.result.context, case.completion
    return {
        "team": case.team,
        "request_id": case.request_id,
        "conversation_id": context.conversation_id,
        "requested_at": context.requested_at,
        "model": case.result.model,
        "prompt_version": context.prompt_version,
        "messages": [dict(each) for each in messages],
        "passages": [] if completion is None else [msgspec.to_builtins(each) for each in completion.passages],
        "answer": answer,
        "rating": rating,
        "corrected": corrected,
    }


def parquet_of(lines: Sequence[bytes], log: Sequence[LogRange]) -> bytes:
    """Return rows of conversations as a Parquet file, zstd, with the topic offsets in its metadata."""
    # Imported here: it takes a third of a second, which every other export would wait for.
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole, number = pa.string(), pa.int64(), pa.float64()
    passage = {
        "passage_id": text, "document_id": text, "title": text, "source": text, "start": whole, "end": whole, "text": text,
        "score": number,
    }  # fmt: skip
    columns = {
        "team": text,
        "request_id": text,
        "conversation_id": text,
        "requested_at": pa.timestamp("us", tz="UTC"),
        "model": text,
        "prompt_version": text,
        "messages": pa.list_(pa.struct([("role", text), ("content", text)])),
        "passages": pa.list_(pa.struct(list(passage.items()))),
        "answer": text,
        "rating": number,
        "corrected": pa.bool_(),
    }
    schema = pa.schema(list(columns.items()), metadata={LOG_METADATA: msgspec.json.encode(list(log))})
    rows = [msgspec.json.decode(line) for line in lines]
    for row in rows:
        row["requested_at"] = msgspec.convert(row["requested_at"], datetime)
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out, compression="zstd")
    return out.getvalue()
