"""Golden sets: what a line may hold, what errors say, and what their version depends on."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluation.golden.answers import Answer
from services.evaluation.golden.checks import checks_of
from services.evaluation.golden.dataset import Case, DatasetError, parse_dataset, read_dataset

EXAMPLE = Path(__file__).resolve().parents[2] / "services" / "evaluation" / "golden" / "example.jsonl"


def parsed(*rows: dict[str, Any] | str) -> tuple[Case, ...]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return parse_dataset(lines, "set.jsonl", "set").cases


def answer(case: Case, content: str = "", **fields: Any) -> Answer:
    return Answer(
        **{
            "case": case.id, "case_version": case.version, "variant": "v", "request_id": "r", "status": "completed",
            "content": content, **fields,
        }
    )  # fmt: skip


def failed(case: Case, given: Answer) -> list[str]:
    return [check.name for check in checks_of(case, given) if not check.passed]


def test_the_shipped_example_is_a_golden_set() -> None:
    found = read_dataset(EXAMPLE)
    assert found.name == "penstock-example"
    assert len(found.cases) >= 10
    assert {case.status for case in found.cases} == {"completed", "blocked"}


def test_short_forms_are_lists_of_one_and_an_id_follows_from_the_content() -> None:
    short, long = parsed(
        {"question": "a?", "reference": "yes", "must_contain": "y", "tags": "t"},
        {"id": "x", "question": "a?", "references": ["yes"], "must_contain": ["y"], "tags": ["t"]},
    )
    assert (short.references, short.must_contain, short.tags) == (("yes",), ("y",), ("t",))
    assert short.id == short.version
    assert long.question_version == short.question_version


def test_a_question_and_a_message_of_a_user_are_the_same_question() -> None:
    one, other = parsed({"question": "a?"}, {"messages": [{"role": "user", "content": "a?"}]})
    assert one.question_version == other.question_version


def test_every_bad_line_is_named_with_its_number_and_the_remedy() -> None:
    with pytest.raises(DatasetError) as caught:
        parsed(
            {"dataset": "x"},
            "{not json",
            {"must_contain": ["x"]},
            {"question": "a", "mustcontain": ["x"]},
            {"question": "a", "regex": "(?=x)"},
            {"question": "a", "json_schema": {"type": "nothing"}},
            {"question": "a", "status": "blocked", "must_contain": ["x"]},
            {"question": "a", "weight": 0},
            {"id": "a", "question": "one"},
            {"id": "a", "question": "two"},
        )
    lines = str(caught.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5", "6", "7", "8", "10"]
    for line, said in zip(
        lines,
        ("write one object a line", 'write "question"', "a case has citations", "no RE2 expression", "no JSON schema",
         "remove one of the two", "greater than 0", "stands in line 9 already"),
        strict=True,
    ):  # fmt: skip
        assert said in line


@pytest.mark.parametrize(
    ("lines", "said"), [([], "holds no case"), (['{"dataset": "only"}'], "holds no case"), (["[1]"], "not an object")]
)
def test_what_is_no_golden_set_says_why(lines: list[str], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        parse_dataset(lines, "set.jsonl", "set")


def test_texts_may_hold_separators_that_are_no_ends_of_lines(tmp_path: Path) -> None:
    """U+2028 and U+0085 stand in JSON as they are: in an answer of a model that was promoted, too."""
    path = tmp_path / "golden.jsonl"
    path.write_bytes('{"question": "a\u2028b\u0085c"}\r\n\n{"question": "d"}\n'.encode())
    assert [case.question for case in read_dataset(path).cases] == ["a\u2028b\u0085c", "d"]


def test_why_an_expression_is_none_is_said_in_words() -> None:
    with pytest.raises(DatasetError, match=r"is no RE2 expression \(invalid perl operator"):
        parsed({"question": "a", "regex": "(?=x)"})


def test_a_line_that_is_nested_too_deep_is_named() -> None:
    with pytest.raises(DatasetError, match=r"set:1: nested too deep"):
        parse_dataset(["[" * 100_000], "set", "set")


def test_a_file_that_is_not_there_or_not_utf8_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.jsonl: No such file"):
        read_dataset(tmp_path / "none.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "caf\xe9"}')
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_dataset(tmp_path / "latin.jsonl")


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
rows = st.fixed_dictionaries(
    {"question": texts},
    optional={
        "reference": texts,
        "must_contain": st.lists(texts, max_size=3),
        "weight": st.floats(0.1, 10),
        "tags": st.lists(texts, max_size=2),
        "max_cost": st.decimals("0", "1", places=6).map(str),
    },
)


@given(st.lists(rows, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_version_does_not_depend_on_order_layout_or_name(found: list[dict[str, Any]], order: random.Random) -> None:
    numbered = [{"id": f"c{index}", **row} for index, row in enumerate(found)]
    first = parse_dataset([json.dumps(row) for row in numbered], "a", "a")
    order.shuffle(numbered)
    again = [json.dumps({key: row[key] for key in sorted(row, reverse=True)}, indent=None) for row in numbered]
    second = parse_dataset(['{"dataset": "other name"}', "", *again], "b", "b")
    assert first.version == second.version
    changed = [{**numbered[0], "question": numbered[0]["question"] + "?"}, *numbered[1:]]
    assert parse_dataset([json.dumps(row) for row in changed], "c", "c").version != first.version


def test_where_a_case_comes_from_is_no_part_of_its_version() -> None:
    one, other = parsed({"id": "1", "question": "a"}, {"id": "2", "question": "a", "note": "n", "source": {"x": "y"}})
    assert one.version == other.version


def test_each_demand_is_checked() -> None:
    (case,) = parsed(
        {
            "question": "q", "must_contain": ["Nine", ["closed", "shut"]], "must_not_contain": ["sorry"],
            "regex": [r"\d+ h"], "citations": ["hours.md"], "max_cost": 0.01, "max_latency_ms": 500,
        }
    )  # fmt: skip
    from penstock.contracts.records import Passage

    passage = Passage(passage_id="p", document_id="hours.md", text="t", score=1.0)
    good = answer(case, "at nine, 8 h; then shut", citations=[passage], cost=Decimal("0.01"), latency_ms=500.0)
    assert failed(case, good) == []
    bad = answer(case, "SORRY", cost=Decimal("0.010000000001"), latency_ms=500.5)
    assert failed(case, bad) == [
        "must_contain 'Nine'", "must_contain 'closed' or 'shut'", "must_not_contain 'sorry'", r"regex '\\d+ h'",
        "citations 'hours.md'", "max_cost 0.01", "max_latency_ms 500",
    ]  # fmt: skip
    assert "max_cost 0.01" in failed(case, answer(case, "nine, 8 h, shut", citations=[passage]))


def test_another_end_than_expected_meets_no_demand_about_the_answer() -> None:
    (case, refused) = parsed(
        {"question": "q", "must_not_contain": ["x"]}, {"question": "r", "status": "blocked", "code": "prompt_injection"}
    )
    expired = answer(case, status="expired", reason="the deadline had passed")
    assert failed(case, expired) == ["status completed", "must_not_contain 'x'"]
    assert "the deadline had passed" in checks_of(case, expired)[0].message
    assert failed(refused, answer(refused, status="blocked", code="prompt_injection")) == []
    assert failed(refused, answer(refused, status="blocked", code="toxicity")) == ["code prompt_injection"]
    assert failed(refused, answer(refused, "here you go")) == ["status blocked", "code prompt_injection"]


def test_an_answer_is_held_to_its_schema() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    (case,) = parsed({"question": "q", "json_schema": schema})
    assert failed(case, answer(case, '{"n": 3}')) == []
    wrong = checks_of(case, answer(case, '{"n": "3"}'))[1]
    assert not wrong.passed
    assert wrong.message.startswith("at n: ")
    assert "no JSON" in checks_of(case, answer(case, "three"))[1].message
    assert json.loads(case.request_sampling.response_format or "") == schema
