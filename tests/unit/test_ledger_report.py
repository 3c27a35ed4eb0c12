"""The report and the statement: exact by every dimension, and the same again from CSV, JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.cli.ledger.output import emit, formatted
from penstock.cli.ledger.sources import selection
from penstock.config.budgets import Budget
from penstock.config.kinds import Price, Team
from penstock.contracts.records import Context, Cost, LlmResult, Usage
from penstock.ledger.dimensions import DIMENSIONS, Selection, UnknownDimension, dimension, dimensions
from penstock.ledger.report import Report
from penstock.ledger.requests import Outcomes, RequestNumbers
from penstock.ledger.statement import Month, Statement
from penstock.ledger.tables import Column, Sheet, as_markdown, as_table, table_width, trimmed, with_total, write
from rich.console import Console

from tests.unit.ledger_costs import PRICES, START, cost, costs, priced

EVERY = [*DIMENSIONS, "tag:feature"]
VERSIONS = {price.version: price for price in PRICES.values()}


def written(sheet: Sheet, form: Any) -> bytes:
    out = io.BytesIO()
    write(sheet, form, out)
    return out.getvalue()


def plain_sum(of: Sequence[Cost]) -> Decimal:
    return sum((one.amount for one in of if one.amount is not None), Decimal(0))


@settings(max_examples=60, deadline=None)
@given(st.lists(costs(), max_size=25), st.sampled_from(EVERY))
def test_sums_by_every_dimension_are_exact(entries: list[Cost], name: str) -> None:
    by = dimension(name)
    lines = Report([by]).extend(entries).lines()
    found = {line.key[0]: line.sums for line in lines}
    ordered = sorted(entries, key=lambda one: by.of(one) or "")
    expected = {(value or None): list(group) for value, group in groupby(ordered, key=lambda one: by.of(one) or "")}
    assert set(found) == set(expected)
    for value, group in expected.items():
        sums = found[value]
        usd = sums.usd
        assert (usd or 0) == plain_sum(group)
        assert (usd is None) == all(one.amount is None for one in group)
        called = [one for one in group if one.kind != "cached"]
        assert (sums.calls, sums.unpriced_calls) == (len(group), sum(not one.priced for one in group))
        assert sums.input_tokens == sum(one.usage.input_tokens for one in called)
        assert sums.saved == sum(int(v * 10**12) for one in group for v in one.saved.values())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(costs(), min_size=1, max_size=25), st.lists(st.sampled_from(EVERY), min_size=1, max_size=3, unique=True)
)
def test_csv_json_and_parquet_sum_up_to_the_ledger(entries: list[Cost], names: list[str]) -> None:
    report = Report(dimensions(names)).extend(entries)
    expected = plain_sum(entries)
    rows = list(csv.DictReader(io.StringIO(written(report.sheet(), "csv").decode())))
    assert sum((Decimal(row["amount"]) for row in rows if row["amount"]), Decimal(0)) == expected
    assert all(len(row["amount"].partition(".")[2]) == 12 for row in rows if row["amount"])
    lines = [json.loads(line) for line in written(report.sheet(), "json").splitlines()]
    assert sum((Decimal(line["amount"]) for line in lines if line["amount"] is not None), Decimal(0)) == expected
    table = pq.read_table(io.BytesIO(written(report.sheet(), "parquet")))
    assert str(table.schema.field("amount").type) == "decimal128(38, 12)"
    amounts = table.column("amount").to_pylist()
    assert sum((amount for amount in amounts if amount is not None), Decimal(0)) == expected
    assert sum(table.column("calls").to_pylist()) == len(entries)
    # Names come back as they are, and what has none is null.
    keys = {tuple(row[name] for name in names) for row in table.to_pylist()}
    assert keys == {line.key for line in report.lines()}


def test_the_total_stands_in_the_last_line_where_it_is_asked_for() -> None:
    report = Report(dimensions(["model", "kind"])).extend([cost(amount=Decimal(1)), cost(model="b", amount=Decimal(2))])
    *_, last = written(with_total(report.sheet()), "csv").splitlines()
    assert last.startswith(b"total,,3.000000000000,2,")


def test_an_unpriced_line_has_no_amount_and_not_zero() -> None:
    report = Report(dimensions(["model"])).extend(
        [priced("unheard-of", Usage(input_tokens=5)), priced("small", Usage())]
    )
    [small, unheard] = report.lines()
    assert (small.key, small.sums.usd) == (("small",), Decimal(0))
    assert (unheard.key, unheard.sums.usd, unheard.sums.unpriced_calls) == (("unheard-of",), None, 1)
    assert report.unpriced == {"unheard-of": 1}
    assert written(report.sheet(), "csv").splitlines()[2].startswith(b"unheard-of,,1,0,1,")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "\t=1", "\r=1", "\n=1"])
def test_no_cell_of_a_csv_is_a_formula(name: str) -> None:
    context = Context(requested_at=START, tags={"feature": name})
    sheet = Report(dimensions(["tag:feature"])).extend([cost(context=context)]).sheet()
    [_, row] = csv.reader(io.StringIO(written(sheet, "csv").decode(), newline=""))
    assert row[0] == "'" + name
    assert (
        json.loads(written(Report(dimensions(["tag:feature"])).extend([cost(context=context)]).sheet(), "json"))[
            "tag:feature"
        ]
        == name
    )


def test_negative_amounts_stay_numbers_in_a_csv() -> None:
    sheet = Sheet((Column("difference", "money"),), [[Decimal("-0.000000000001")]])
    assert written(sheet, "csv").splitlines()[1] == b"-0.000000000001"


@settings(max_examples=30, deadline=None)
@given(st.lists(costs(), min_size=1, max_size=20), st.integers(1, 5))
def test_what_lies_beyond_the_limit_is_summed_up(entries: list[Cost], limit: int) -> None:
    report = Report(dimensions(["model", "kind"])).extend(entries)
    rows = list(report.sheet("amount", limit).rows)
    assert len(rows) == min(limit + 1, len(report.lines()))
    assert sum((row[2] for row in rows if row[2] is not None), Decimal(0)) == plain_sum(entries)


def test_the_dearest_come_first_and_times_follow_each_other() -> None:
    entries = [
        cost(model="b", amount=Decimal(1), accounted_at=START + timedelta(days=1)),
        cost(model="a", amount=Decimal(2), accounted_at=START),
        cost(model="c", amount=Decimal(1)),
        cost(model="d", amount=None, priced=False),
    ]
    assert [line.key[0] for line in Report(dimensions(["model"])).extend(entries).lines()] == ["a", "b", "c", "d"]
    assert [line.key[0] for line in Report(dimensions(["model"])).extend(entries).lines("name")] == ["a", "b", "c", "d"]
    days = Report(dimensions(["day"])).extend(reversed(entries))
    assert [line.key[0] for line in days.lines()] == ["2026-11-01", "2026-11-02"]


def test_a_call_counts_when_its_request_was_admitted() -> None:
    late = cost(
        occurred_at=datetime(2026, 12, 1, 0, 5, tzinfo=UTC), accounted_at=datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    )
    assert dimension("month").of(late) == "2026-11"
    assert dimension("hour").of(late) == "2026-11-30T23:00Z"
    december = Selection(since=datetime(2026, 12, 1, tzinfo=UTC))
    assert not december.takes(late)
    assert december.takes(cost(occurred_at=late.occurred_at))
    assert not Selection(until=late.accounted_at).takes(late)
    assert not Selection(team="research").takes(late)
    assert not Selection(kind="judge").takes(late)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["modle"], "did you mean model"),
        (["tag:"], "tag:<name>"),
        (["team", "team"], "twice"),
        ([], "no dimension"),
    ],
)
def test_unknown_dimensions_are_named_with_those_there_are(names: list[str], says: str) -> None:
    with pytest.raises(UnknownDimension, match=says):
        dimensions(names)


def result(request_id: str, status: str, team: str = "support") -> LlmResult:
    return LlmResult(
        event_id="x", request_id=request_id, tenant_id=team, occurred_at=START, causation_id="", status=status,
        context=Context(requested_at=START),
    )  # fmt: skip


def test_outcomes_are_found_by_team_and_request() -> None:
    outcomes = Outcomes()
    outcomes.add(result("r1", "blocked"))
    outcomes.add(result("r2", "completed"))
    outcomes.add(result("r1", "expired", team="research"))
    assert outcomes.of(cost(request_id="r1")) == "blocked"
    assert outcomes.of(cost(request_id="r1", tenant_id="research")) == "expired"
    assert outcomes.of(cost(request_id="r9")) == "unknown"
    by = dimensions(["outcome"], outcomes.of)
    assert {line.key[0] for line in Report(by).extend([cost(request_id="r2"), cost(request_id="r9")]).lines()} == {
        "completed", "unknown",
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3), st.integers(0, 2**40)), max_size=40))
def test_request_numbers_hold_the_last_of_each(put: list[tuple[str, str, int]]) -> None:
    numbers, expected = RequestNumbers(), {}
    for team, request_id, number in put:
        numbers.put(team, request_id, number)
        expected[team, request_id] = number
    assert {key: numbers.get(*key) for key in expected} == expected
    assert numbers.get("c", "nothing") is None


def statement(
    entries: Sequence[Cost], *teams: Team, by: Sequence[str] = ("model", "kind"), outcomes: Outcomes | None = None
) -> Statement:
    made = Statement(
        Month.parse("2026-11"), dimensions(by), price_of=VERSIONS.get, teams={team.name: team for team in teams},
        outcome_of=(outcomes or Outcomes()).of,
    )  # fmt: skip
    for one in entries:
        made.add(one)
    return made


@settings(max_examples=40, deadline=None)
@given(st.lists(costs(month_only=True), max_size=25))
def test_statement_report_and_ledger_agree_to_the_last_digit(entries: list[Cost]) -> None:
    made = statement(entries, by=("model", "kind", "tag:feature"))
    teams = made.teams()
    by_team = {line.key[0]: line.sums for line in Report(dimensions(["team"])).extend(entries).lines()}
    assert {one.team: one.total for one in teams} == by_team
    rows = list(csv.DictReader(io.StringIO(written(made.sheet(teams), "csv").decode())))
    for one in teams:
        own = [row for row in rows if row["team"].lstrip("'") == one.team]
        of_ledger = plain_sum([entry for entry in entries if entry.tenant_id == one.team])
        assert sum((Decimal(row["amount"]) for row in own if row["amount"]), Decimal(0)) == of_ledger
        assert sum(one.by_outcome.values(), Decimal(0)) == of_ledger
    # Without long prompts and time, an amount is what its unit prices say.
    for row in rows:
        if row["model"] == "small" and row["kind"] != "cached":
            tokens = int(row["input_tokens"]) * Decimal(row["input_cost_per_token"])
            assert tokens + int(row["output_tokens"]) * Decimal(row["output_cost_per_token"]) == Decimal(row["amount"])


def test_the_statement_shows_each_price_that_was_applied() -> None:
    dearer = Price(model="small", input_cost_per_token=Decimal("0.000000000002"), output_cost_per_token=Decimal(0))
    usage = Usage(input_tokens=10)
    made = statement([priced("small", usage), cost(price_version=dearer.version, amount=Decimal("2E-11"), usage=usage)])
    [one] = made.teams()
    assert {line.price_version for line in one.lines} == {PRICES["small"].version, dearer.version}
    [known, gone] = one.lines
    assert known.price == PRICES["small"]
    assert gone.price is None  # a version that the history does not hold: the amount stands, the rates are not shown


def test_the_statement_says_what_was_wasted_and_what_is_not_known() -> None:
    outcomes = Outcomes()
    for request_id, status in (("r1", "blocked"), ("r2", "completed"), ("r3", "expired")):
        outcomes.add(result(request_id, status))
    entries = [cost(request_id=f"r{n}", amount=Decimal(n)) for n in (1, 2, 3, 4)]
    [one] = statement(entries, outcomes=outcomes).teams()
    assert (one.wasted, one.outcome_unknown) == (Decimal(4), Decimal(4))
    assert one.by_outcome == {"blocked": 1, "completed": 2, "expired": 3, "unknown": 4}


def test_monthly_budgets_and_their_use() -> None:
    team = Team(
        name="support",
        budgets=(
            Budget(name="all", window="month", limit=Decimal(10)),
            Budget(name="each", per="user", window="month", limit=Decimal(3), mode="soft"),
            Budget(name="daily", window="day", limit=Decimal(1)),
        ),
    )
    users = [("ann", 2), ("ben", 4), ("ben", 1), (None, 1)]
    entries = [
        cost(amount=Decimal(usd), context=Context(requested_at=START, user_id=user)) for user, usd in users
    ]  # fmt: skip
    [one] = statement(entries, team).teams()
    [everyone, each] = one.budgets
    assert (everyone.used, everyone.share, everyone.over, everyone.highest) == (Decimal(8), Decimal("0.8"), 0, "")
    assert (each.used, each.highest, each.subjects, each.over) == (Decimal(5), "ben", 3, 1)


def test_a_statement_takes_costs_of_its_month_only() -> None:
    with pytest.raises(ValueError, match="not in 2026-11"):
        statement([cost(accounted_at=datetime(2026, 12, 1, tzinfo=UTC))])


def test_a_month_closes_when_nothing_more_is_expected() -> None:
    month = Month.parse("2026-12")
    assert month.end == datetime(2027, 1, 1, tzinfo=UTC)
    assert not month.closed(month.end + timedelta(days=7))
    assert month.closed(month.end + timedelta(days=8))
    for text in ("2026-13", "2026", "November", "2026-11-01"):
        with pytest.raises(ValueError, match="YYYY-MM"):
            Month.parse(text)


def test_tables_show_every_digit_and_leave_out_what_is_empty() -> None:
    entries = [cost(model="a", amount=Decimal("1234567.000000000001")), cost(model="b" * 300, amount=Decimal(2))]
    table = as_table(Report(dimensions(["model"])).extend(entries).sheet())
    text = io.StringIO()
    Console(file=text, width=table_width(table)).print(table)
    shown = text.getvalue()
    assert "1,234,567.000000000001" in shown
    assert "2.000000000000" in shown
    assert "1,234,569.000000000001" in shown  # the total
    assert "unpriced_calls" not in shown
    assert shown.count("b") > 299
    assert trimmed(Decimal("0.000009480000")) == "0.00000948"
    assert trimmed(Decimal("12.500000000000")) == "12.50"
    assert trimmed(None) == "–"


def test_names_are_no_markup_and_steer_no_terminal() -> None:
    name = "[red]x[/red]|y\x1b[2J\n_z_"
    sheet = Report(dimensions(["user"])).extend([cost(context=Context(requested_at=START, user_id=name))]).sheet()
    text = io.StringIO()
    Console(file=text, width=200).print(as_table(sheet))
    assert "[red]x[/red]|y\\x1b[2J\\n_z_" in text.getvalue()
    sheet = Report(dimensions(["user"])).extend([cost(context=Context(requested_at=START, user_id=name))]).sheet()
    assert r"\[red\]x\[/red\]\|y\\x1b\[2J\\n\_z\_" in as_markdown(sheet)


@pytest.mark.parametrize(
    ("form", "out", "expected"),
    [
        (None, "-", "table"),
        (None, "costs.csv", "csv"),
        (None, "costs.PARQUET", "parquet"),
        (None, "costs.xlsx", "table"),
        (None, "costs.md", "table"),  # the report has no Markdown
        ("json", "costs.csv", "json"),
    ],
)
def test_the_format_is_that_of_the_files_name_unless_it_is_said(form: str | None, out: str, expected: str) -> None:
    assert formatted(form, out) == expected


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "costs.csv"
    out.write_text("old")

    def broken() -> Iterator[tuple[str]]:
        yield ("a",)
        raise RuntimeError

    columns = (Column("model", "text"),)
    with pytest.raises(RuntimeError):
        emit(Sheet(columns, broken()), "csv", str(out))
    assert out.read_text() == "old"
    emit(Sheet(columns, [("new",)]), "csv", str(out))
    assert out.read_bytes() == b"model\r\nnew\r\n"
    assert [file.name for file in tmp_path.iterdir()] == ["costs.csv"]
    for elsewhere in (tmp_path / "nowhere" / "costs.csv", out / "costs.csv", tmp_path):
        with pytest.raises(click.ClickException, match="cannot be written"):
            emit(Sheet(columns, []), "csv", str(elsewhere))


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(click.UsageError, match="swap the two"):
        selection(START, START)
