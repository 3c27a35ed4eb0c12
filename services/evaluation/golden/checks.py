"""What a case demands of its answer, demand by demand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache

import jsonschema_rs
import msgspec
import re2

from services.evaluation.golden.answers import Answer
from services.evaluation.golden.dataset import Case

__all__ = ["Check", "checks_of"]

_SHOWN = 200


class Check(msgspec.Struct, frozen=True):
    """One demand of a case, and whether an answer meets it.

    Attributes:
        name: the demand, e.g. ``must_contain 'three days'``: the same for every answer of the case.
        passed: whether it is met.
        message: what was found instead; empty where it is met.
    """

    name: str
    passed: bool
    message: str = ""


def checks_of(case: Case, answer: Answer) -> list[Check]:
    """Return every demand of ``case`` with whether ``answer`` meets it.

    That the request ends as expected comes first. Where it does not, what the answer should hold is not met either. A
    cost that is not known meets no ``max_cost``.
    """
    ended = answer.status == case.status
    why = ": ".join(part for part in (answer.code, answer.reason) if part)
    said = f"ended as {answer.status}" + (f" ({why})" if why else "")
    found = [Check(f"status {case.status}", ended, "" if ended else said)]
    if case.code is not None:
        met = answer.code == case.code
        found.append(Check(f"code {case.code}", met, "" if met else f"the code is {answer.code or 'none'}"))
    found += [
        check if ended else Check(check.name, False, f"there is no such answer: it {said}")
        for check in _of_answer(case, answer)
    ]
    return found


def _of_answer(case: Case, answer: Answer) -> Iterator[Check]:
    text = answer.content.casefold()
    for wanted in case.must_contain:
        choices = (wanted,) if isinstance(wanted, str) else wanted
        met = any(choice.casefold() in text for choice in choices)
        yield _check(f"must_contain {' or '.join(map(repr, choices))}", met, "the answer holds no such text")
    for unwanted in case.must_not_contain:
        at = text.find(unwanted.casefold())
        yield _check(f"must_not_contain {unwanted!r}", at < 0, "the answer holds it")
    for expression in case.regex:
        yield _check(f"regex {expression!r}", _matches(expression, answer.content), "nothing in the answer matches")
    if case.json_schema is not None:
        problem = _schema_problem(json.dumps(case.json_schema, sort_keys=True), answer.content)
        yield _check("json_schema", problem is None, problem or "")
    if case.citations:
        cited = {
            name
            for passage in answer.citations
            for name in (passage.document_id, passage.source, passage.title, passage.passage_id)
        }
        for document in case.citations:
            quoted = ", ".join(sorted({passage.document_id for passage in answer.citations})) or "nothing"
            yield _check(f"citations {document!r}", document in cited, f"the answer quotes {quoted}")
    if case.max_cost is not None:
        known = "what it cost is not known" if answer.cost is None else f"it cost {answer.cost.normalize():f} USD"
        yield _check(f"max_cost {case.max_cost:f}", answer.cost is not None and answer.cost <= case.max_cost, known)
    if case.max_latency_ms is not None:
        yield _check(
            f"max_latency_ms {case.max_latency_ms}",
            answer.latency_ms <= case.max_latency_ms,
            f"it took {answer.latency_ms:.0f} ms",
        )


def _check(name: str, passed: bool, message: str) -> Check:
    return Check(name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…", passed, "" if passed else message)


def _matches(expression: str, text: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    # RE2 takes UTF-8, which has no lone surrogates.
    return re2.compile(expression, options=options).search(text.encode("utf-8", "replace").decode()) is not None


@lru_cache(maxsize=256)
def _validator(schema: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(schema), pattern_options=jsonschema_rs.RegexOptions(), offline=True)


def _schema_problem(schema: str, text: str) -> str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"the answer is no JSON: {error}"
    problem = next(iter(_validator(schema).iter_errors(value)), None)
    if problem is None:
        return None
    where = "/".join(str(part) for part in problem.instance_path)
    return f"at {where or 'the top'}: {problem.message}"
