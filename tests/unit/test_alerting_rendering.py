"""What people read of alerts: escaped, on one line where one line is meant, with what is needed to act."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerting.rendering import (
    figures,
    headline,
    html_page,
    left_out,
    link_of,
    one_line,
    plain_text,
    printable,
    render,
    runbook_of,
)
from tests.unit.alerting_notifications import a_notification, an_alert

text = st.text(st.characters(codec="utf-8"), max_size=60)
BASE = "https://runbooks.example.com/main"


class Page(HTMLParser):
    """The tags and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.words += data


@given(text, st.integers(1, 50))
def test_one_line_is_one_and_no_longer_than_asked(value: str, most: int) -> None:
    line = one_line(value, most)
    assert len(line) <= most
    assert line == "" or line.isprintable()


@given(st.text())
def test_nothing_printable_can_steer_a_terminal_or_a_header(value: str) -> None:
    assert printable(value).isprintable() or not value
    assert len(printable(value)) == len(value)


@pytest.mark.parametrize("mark", ["\n", "\r", "\x1b", "\x00", "\u2028", "\u202e", "\ud800", "\u200b", "\x85"])
def test_marks_that_are_not_seen_become_spaces(mark: str) -> None:
    assert printable(f"a{mark}b") == "a b"


@given(text, text, text, text, st.dictionaries(text, st.floats(), max_size=3))
def test_a_page_holds_no_tag_or_link_of_an_alerts_text(
    title: str, description: str, runbook: str, request: str, numbers: dict[str, float]
) -> None:
    hostile = an_alert(
        title=f"{title}<script>x</script>", description=f'{description}"><img src=x onerror=y>', figures=numbers,
        runbook=f'{runbook}"><a href="javascript:x">', sample_requests=[request], suggested_action="</div><b>",
        fingerprint="<i>", kind="<u>",
    )  # fmt: skip
    page = Page()
    page.feed(html_page(a_notification(hostile), BASE))
    assert page.tags <= {
        "html",
        "head",
        "meta",
        "title",
        "body",
        "h1",
        "h2",
        "div",
        "p",
        "b",
        "a",
        "table",
        "tr",
        "td",
        "code",
    }
    assert len(page.links) == 1
    assert str(page.links[0]).startswith(f"{BASE}/")
    assert "<script>x</script>" in page.words
    Page().feed(html_page(a_notification(hostile), ""))


@given(text)
def test_a_runbooks_link_is_percent_encoded_below_its_base(path: str) -> None:
    link = link_of(an_alert(runbook=path), BASE)
    assert link is not None
    assert link.startswith(f"{BASE}/")
    assert not set(link[len(BASE) :]) & set("<>|\"' \n`\\")
    assert link.isascii()


def test_without_an_address_a_runbook_is_a_path_and_no_link() -> None:
    assert link_of(an_alert(), "") is None
    assert link_of(an_alert(), "javascript:alert(1)") is None
    assert runbook_of(an_alert(), "") == "services/alerting/runbooks/drift.md"
    assert runbook_of(an_alert(runbook="services/alerting/runbooks/cost.md#page"), f"{BASE}/") == (
        f"{BASE}/services/alerting/runbooks/cost.md#page"
    )


def test_headlines() -> None:
    one = an_alert(title="support: spend is above its limit")
    assert headline(a_notification(one)) == "[WARNING] support: spend is above its limit"
    assert headline(a_notification(one, purpose="escalation")).startswith("[WARNING] nobody has acknowledged: ")
    assert headline(a_notification(one, purpose="repeat")).startswith("[WARNING] still: ")
    loud = an_alert("f2", severity="critical", title="all of it")
    assert headline(a_notification(one, loud)) == "[CRITICAL] 2 alerts (kind drift, team support): all of it"
    over = an_alert("f3", status="resolved", severity="critical")
    assert headline(a_notification(over, purpose="resolved")) == "[RESOLVED] support: the prompts' topic has shifted"
    assert headline(a_notification(one, over)).startswith("[WARNING] 2 alerts")
    assert headline(a_notification(an_alert(severity="odd"))).startswith("[WARNING]")
    assert len(headline(a_notification(an_alert(title="x" * 900)))) == 200


def test_plain_text_holds_what_is_needed_to_act() -> None:
    told = plain_text(a_notification(an_alert(), an_alert("f2", status="resolved"), left_out=3), BASE)
    for each in (
        "WARNING drift/topic_shift: support: the prompts' topic has shifted",
        "RESOLVED drift/topic_shift",
        "first: Read the sample requests.",
        "requests: r1, r2",
        "began: 2026-01-05T08:55:00Z",
        "distance: 0.4321",
        "messages: 12",
        "in the log: signals[3] 100-140",
        f"runbook: {BASE}/services/alerting/runbooks/drift.md",
        "acknowledge: penstock alerts ack f1",
        "3 more alerts are not in this message",
    ):
        assert each in told
    assert "ack f2" not in told
    assert left_out(a_notification(left_out=1)).startswith("1 more alert is not")


def test_a_terminals_lines_are_coloured_only_where_there_is_one() -> None:
    assert render(an_alert(), "", True).startswith("\x1b[33m")
    assert "\x1b" not in render(an_alert(title="\x1b[2J"), "", False)
    assert render(an_alert(status="resolved"), "", True).startswith("\x1b[32m")


def test_figures_are_numbers_that_can_be_read() -> None:
    odd = {"nan": math.nan, "inf": math.inf, "huge": 1e300, "whole": 1234567.0, "small": 0.000012345678}
    assert figures(an_alert(figures=odd)) == [
        ("huge", "1e+300"), ("inf", "inf"), ("nan", "nan"), ("small", "1.23457e-05"), ("whole", "1234567"),
    ]  # fmt: skip
