"""A run's outcome as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from services.evaluation.golden.comparison import Comparison, Demand
from services.evaluation.golden.report import Report, number
from services.evaluation.golden.scoring import Scored

__all__ = ["junit"]

# Characters that XML 1.0 does not have, escaped or not.
_UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST = 20_000


def junit(report: Report) -> str:
    """Return the report as XML.

    One test suite a variant with a test case for each case of the golden set: a failure where a demand is not met, an
    error where the request failed or expired. One suite a comparison with a test case for each metric that has a rule: a
    failure where it is a regression. One suite of what is required. Only the last two decide the exit status of a run
    that compares.
    """
    root = ElementTree.Element("testsuites", name=_text(f"penstock evaluate {report.run.dataset}"))
    for summary in report.variants:
        rows = [row for row in report.rows if row.answer.variant == summary.variant.name]
        suite = _suite(root, summary.variant.name, report)
        for row in rows:
            _case(suite, report, row)
        _close(suite, sum(row.answer.latency_ms for row in rows) / 1000)
    for comparison in report.comparisons:
        suite = _suite(root, f"{comparison.candidate} against {comparison.baseline}", report)
        _metrics(suite, comparison)
        _close(suite, 0.0)
    if report.demands:
        suite = _suite(root, "requirements", report)
        for demand in report.demands:
            _demand(suite, demand)
        _close(suite, 0.0)
    for attribute in ("tests", "failures", "errors"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, name: str, report: Report) -> ElementTree.Element:
    suite = ElementTree.SubElement(
        root, "testsuite", name=_text(name), timestamp=report.made_at.strftime("%Y-%m-%dT%H:%M:%S")
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (
        ("run", report.run.run),
        ("dataset", report.run.dataset),
        ("dataset_version", report.run.dataset_version),
        ("team", report.run.team),
    ):
        ElementTree.SubElement(properties, "property", name=key, value=_text(value))
    return suite


def _close(suite: ElementTree.Element, seconds: float) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.set("time", f"{seconds:.3f}")


def _case(suite: ElementTree.Element, report: Report, row: Scored) -> None:
    answer = row.answer
    name = answer.case if report.run.repeats == 1 else f"{answer.case} #{answer.repeat + 1}"
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=_text(name),
        classname=_text(f"{report.run.dataset}.{answer.variant}".replace(" ", "_")),
        time=f"{answer.latency_ms / 1000:.3f}",
    )
    missed = [check for check in row.checks if not check.passed]
    if missed:
        broken = answer.status in ("failed", "expired", "cancelled")
        said = ElementTree.SubElement(
            case, "error" if broken else "failure", message=_text(missed[0].message), type=_text(missed[0].name)
        )
        said.text = _text("\n".join(f"{check.name}: {check.message}" for check in missed))
    metrics = "\n".join(f"{name} = {number(value)}" for name, value in sorted(row.metrics.items()))
    out = ElementTree.SubElement(case, "system-out")
    out.text = _text(f"request {answer.request_id}\n\n{answer.content}\n\n{metrics}")


def _metrics(suite: ElementTree.Element, comparison: Comparison) -> None:
    for row in comparison.metrics:
        if not row.rule:
            continue
        case = ElementTree.SubElement(
            suite, "testcase", name=_text(f"{row.metric} {row.rule}"), classname=_text(comparison.candidate), time="0"
        )
        judged = row.share or row.difference
        interval = (
            "no interval"
            if judged.low is None or judged.high is None
            else f"{number(judged.low, True)} to {number(judged.high, True)}"
        )
        text = (
            f"{number(row.baseline)} to {number(row.candidate)}; difference {number(judged.value, True)} ({interval}) over "
            f"{row.cases} cases"
        )
        if row.verdict == "regression":
            failure = ElementTree.SubElement(case, "failure", message=_text(f"{row.metric}: {text}"), type="regression")
            failure.text = _text(text)
        elif row.verdict == "untested":
            ElementTree.SubElement(case, "skipped", message="too few cases for an interval")
        out = ElementTree.SubElement(case, "system-out")
        out.text = _text(text)


def _demand(suite: ElementTree.Element, demand: Demand) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", name=_text(demand.requirement), classname=_text(demand.variant), time="0"
    )
    mean = "no answer has the metric" if demand.mean is None else f"the mean is {number(demand.mean)}"
    if not demand.met:
        ElementTree.SubElement(case, "failure", message=mean, type="requirement")


def _text(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
    return _UNWRITABLE.sub("\ufffd", cut)
