"""From answers to reports: scores, earlier runs, consistency, and what each form of the report says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from penstock.contracts.records import Passage, Usage
from penstock.embedding.protocol import Embedded, Vectors

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange
from services.evaluation.golden.answers import Answer, Run
from services.evaluation.golden.command_run import run as run_command
from services.evaluation.golden.dataset import Case, parse_dataset
from services.evaluation.golden.judged import Judgement
from services.evaluation.golden.metrics import rule_of, rules_of
from services.evaluation.golden.outcome import Earlier, Judging, outcome
from services.evaluation.golden.printing import print_report, write_report
from services.evaluation.golden.report import Report, ReportError, number, read_report, stored_answers
from services.evaluation.golden.scoring import metric_names
from services.evaluation.golden.variants import Variant

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
HOSTILE = '<script>alert("x")</script> | `a` \x00\x1b[2J &amp;'


@evaluator("overlap", version="1")
def overlap(exchange: Exchange) -> float | None:
    """1 where the answer is the reference."""
    return None if exchange.reference is None else float(exchange.reference in exchange.answer)


class Letters:
    """Embeds a text as the counts of its letters."""

    name = "letters"
    dimension = 26

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = np.array([[text.lower().count(chr(97 + n)) + 1e-6 for n in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.embed(texts), tuple(len(text) for text in texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(0, len(text))]


def cases(count: int = 12, **fields: Any) -> tuple[Case, ...]:
    lines = [
        json.dumps({"id": f"c{n}", "question": f"q{n} {HOSTILE}", "references": [f"yes {n}", "nine"], "must_contain": "nine",
                    **fields})
        for n in range(count)
    ]  # fmt: skip
    return parse_dataset(lines, "set", "set").cases


def answered(found: Sequence[Case], variant: str, text: str, *, repeat: int = 0, **fields: Any) -> list[Answer]:
    passage = Passage(passage_id="p", document_id="d", text="evidence", score=1.0)
    return [
        Answer(
            **{
                "case": case.id, "case_version": case.version, "variant": variant, "repeat": repeat,
                "request_id": f"{variant}-{case.id}-{repeat}", "status": "completed", "content": text,
                "citations": [passage], "passages": [passage], "cost": Decimal("0.000000000007"), "latency_ms": 40.0,
                "usage": Usage(input_tokens=10, output_tokens=5), "model": "m", **fields,
            }
        )
        for case in found
    ]  # fmt: skip


def reported(found: Sequence[Case], answers: Sequence[Answer], *names: str, **options: Any) -> Report:
    metrics = metric_names([overlap], options.pop("rubrics", ()))
    run = Run(
        run="r", started_at=NOW, dataset=f"towns {HOSTILE}", dataset_version="v", team="support",
        variants=[Variant(name) for name in names], repeats=options.pop("repeats", 1),
    )  # fmt: skip
    required = [rule_of(spec, metrics) for spec in options.pop("required", ())]
    return outcome(
        run, found, answers, [overlap], Letters(), rules=rules_of(options.pop("fail_if", ()), metrics),
        requirements=required, made_at=NOW, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def worse() -> Report:
    found = cases()
    answers = [*answered(found, "a", "at nine"), *answered(found[:-1], "b", f"at seven {HOSTILE}")]
    answers += answered(found[-1:], "b", "", status="expired", reason="too late", cost=Decimal(0))
    return reported(found, answers, "a", "b", fail_if=["answer.overlap<-0.1"])


def test_the_worse_variant_is_named_with_its_figures(worse: Report) -> None:
    assert not worse.ok
    said = "\n".join(worse.problems)
    assert "passed of b is worse than of a: 1.000 to 0, difference -1.000" in said
    assert "answer.overlap of b" in said
    (comparison,) = worse.comparisons
    rows = {row.metric: row for row in comparison.metrics}
    assert (rows["answer.overlap"].cases, rows["answer.overlap"].left_out) == (11, 1)
    assert rows["status"].verdict == "same"
    assert worse.variants[1].statuses == {"completed": 11, "expired": 1}
    assert worse.variants[0].cost == Decimal("0.000000000084")


def test_the_order_in_which_answers_came_changes_nothing() -> None:
    found = cases(5)
    answers = [*answered(found, "a", "at nine"), *answered(found, "b", "at seven")]
    assert reported(found, answers, "a", "b") == reported(found, answers[::-1], "a", "b")


def test_a_rule_that_nothing_can_break_is_told() -> None:
    found = tuple(case.model_copy(update={"references": ()}) for case in cases(3))
    answers = [*answered(found, "a", "at nine"), *answered(found, "b", "at nine")]
    report = reported(found, answers, "a", "b", fail_if=["answer.overlap<-0.1"])
    assert report.ok
    assert "b: no case has answer.overlap on both sides: its rule says nothing" in report.notes


def test_the_best_reference_counts_and_repeats_of_a_case_are_averaged() -> None:
    found = cases(3)
    answers = [*answered(found, "a", "nine"), *answered(found, "a", "ten", repeat=1)]
    report = reported(found, answers, "a", repeats=2, required=["answer.overlap>=0.5", "passed>0.5"])
    assert [(one.mean, one.met) for one in report.demands] == [(0.5, True), (0.5, False)]
    assert report.problems == ["a does not meet passed > 0.5: the mean is 0.500"]
    (steady,) = report.steadiness
    assert (steady.same, steady.flip_rate, steady.lost) == (0.0, 0.5, 3)


def test_consistency_lists_the_worst_first_and_counts_flips_both_ways() -> None:
    found = cases(4)
    a = answered(found, "a", "at nine o'clock")
    b = [
        *answered(found[:1], "b", "at  nine o'clock"), *answered(found[1:2], "b", "zzz"),
        *answered(found[2:3], "b", "nine at o'clock"), *answered(found[3:], "b", "", status="failed"),
    ]  # fmt: skip
    (one,) = reported(found, [*a, *b], "a", "b").consistency
    assert [case.case for case in one.cases] == ["c3", "c1", "c2", "c0"]
    assert [case.alike for case in one.cases] == [0.0, pytest.approx(0, abs=0.05), pytest.approx(1), 1.0]
    assert (one.same, one.lost, one.gained) == (0.25, 3, 0)
    assert one.flip_rate == pytest.approx(3 / 8)
    (back,) = reported(found, [*b, *a], "b", "a").consistency
    assert (back.lost, back.gained) == (0, 3)


def test_an_earlier_run_is_compared_case_by_case_where_the_case_is_the_same(worse: Report, tmp_path: Path) -> None:
    write_report(worse, tmp_path)
    stored = read_report(tmp_path / "report.json")
    assert stored == msgspec.json.decode(msgspec.json.encode(worse), type=Report)
    with pytest.raises(ReportError, match="variants a, b: choose one"):
        stored_answers(stored, None, "baseline")
    with pytest.raises(ReportError, match="no variant 'c'"):
        stored_answers(stored, "c", "baseline")
    variant, answers = stored_answers(stored, "a", "baseline")
    now = (*cases()[:10], *cases(1, tags="new")[:1])
    changed = [case.model_copy(update={"id": "c10"}) if case.tags else case for case in now]
    report = reported(changed, answered(changed, "b", "at seven"), "b", earlier=Earlier(variant, "r0", answers))
    assert report.variants[0].earlier_run == "r0"
    assert report.variants[0].answers == 10
    assert {row.metric: row.verdict for row in report.comparisons[0].metrics}["passed"] == "regression"
    assert any(
        "10 cases are compared: 2 of its cases are different now or gone, 1 are new" in note for note in report.notes
    )


def test_what_judges_say_is_compared_too() -> None:
    found = cases(6)
    a, b = answered(found, "a", "at nine"), answered(found, "b", "nine it is")

    def said(answer: Answer, rubric: str, score: float, other: str = "") -> Judgement:
        return Judgement(
            task=f"{rubric} {answer.request_id}", rubric=rubric, request_id=answer.request_id, other=other,
            case=answer.case, variant="b" if other else answer.variant, score=score,
        )  # fmt: skip

    judgements = [said(answer, "clear", 0.75) for answer in (*a, *b)]
    judgements += [said(one, "better", float(n > 0) or 0.5, b[n].request_id) for n, one in enumerate(a)]
    judging = Judging(judgements, ["better"], ["one was late"])
    report = reported(found, [*a, *b], "a", "b", judging=judging, rubrics=["better", "clear"])
    rows = {row.metric: row for row in report.comparisons[0].metrics}
    assert rows["judge.better"].baseline == pytest.approx(5.5 / 6)
    assert rows["judge.better"].verdict == "regression"
    assert (rows["judge.clear"].candidate, rows["judge.clear"].verdict) == (0.75, "same")
    assert "one was late" in report.notes


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_needs_no_network(worse: Report, tmp_path: Path) -> None:
    write_report(worse, tmp_path)
    page = _Page()
    page.feed((tmp_path / "report.html").read_text())
    assert page.open == []
    assert "script" not in page.tags
    assert page.links == []
    assert page.tags.count("svg") == sum(row.difference.low is not None for row in worse.comparisons[0].metrics)
    text = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in text
    assert "\x00" not in text
    assert "prefers-color-scheme: dark" in text


def test_junit_is_xml_with_a_case_for_each_answer_and_rule(worse: Report, tmp_path: Path) -> None:
    write_report(worse, tmp_path)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert (suites["a"].get("tests"), suites["a"].get("failures"), suites["a"].get("errors")) == ("12", "0", "0")
    assert (suites["b"].get("failures"), suites["b"].get("errors")) == ("11", "1")
    failure = suites["b"].find("testcase/failure")
    assert failure is not None
    assert "must_contain 'nine': the answer holds no such text" in (failure.text or "")
    error = suites["b"].find("testcase/error")
    assert error is not None
    assert "too late" in (error.get("message") or "")
    regressions = {case.get("name") for case in suites["b against a"] if case.find("failure") is not None}
    assert {"passed < 0", "answer.overlap < -0.1"} <= regressions
    assert root.get("tests") == str(sum(len(suite.findall("testcase")) for suite in root))


def test_markdown_and_terminal_hold_no_markup_of_others(
    worse: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(worse, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "<script" not in text.replace("\\<script", "")
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in tables if line.startswith("| b ")} == {9, 4}
    print_report(worse, tmp_path)
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "passed of b is worse than of a" in shown


def test_figures_are_for_people() -> None:
    assert [number(value) for value in (0.0, 0.123456, 12.34, 1234.5, 0.0000151, -0.5)] == [
        "0", "0.123", "12.3", "1,234", "0.0000151", "-0.500",
    ]  # fmt: skip
    assert number(0.25, True) == "+0.250"


@pytest.mark.parametrize(
    ("line", "options", "said"),
    [
        ('{"question": ""}', [], "set.jsonl:1: question"),
        ('{"question": "q"}', [], "--team"),
        ('{"question": "q"}', ["--team", "t", "--evaluator", "nope"], "no evaluator nope"),
        ('{"question": "q"}', ["--team", "t", "--fail-if", "nope<0"], "no metric 'nope'"),
        ('{"question": "q"}', ["--team", "t", "--tag", "nope"], "has the tag nope"),
        ('{"question": "q"}', ["--team", "t", "--resume", "nowhere"], "holds no run"),
        ('{"question": "q"}', ["--team", "t", "--baseline", "none.json"], "none.json: No such file"),
    ],
)  # fmt: skip
def test_what_cannot_run_exits_2_with_the_cause(line: str, options: list[str], said: str, tmp_path: Path) -> None:
    runner = CliRunner()
    with runner.isolated_filesystem(tmp_path) as folder:
        Path("set.jsonl").write_text(line)
        found = runner.invoke(run_command, ["--dataset", "set.jsonl", *options])
        assert found.exit_code == 2, found.output
        assert said in found.output
        assert [path.name for path in Path(folder).iterdir()] == ["set.jsonl"]
