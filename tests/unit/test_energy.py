"""Energy of model calls: the estimate, the shipped figures, and the report."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.files import load_files
from penstock.config.kinds import EnergyFigures, Price, Route
from penstock.contracts.catalogue import project_file
from penstock.contracts.records import Completion, Context, Energy, Usage
from penstock.ledger.dimensions import Selection
from penstock.ledger.energy import ENERGY_DIMENSIONS, EnergyReport
from penstock.ledger.tables import as_markdown, write

from services.inference.energy import estimated_energy

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
FIGURES = EnergyFigures(
    model="m",
    joules_per_input_token=0.5,
    joules_per_output_token=2.0,
    joules_per_request=10.0,
    overhead=1.5,
    source="a test",
)


def a_completion(event_id: str, energy: Energy | None = None, **changes: Any) -> Completion:
    fields: dict[str, Any] = {
        "event_id": event_id, "request_id": "r", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
        "context": Context(requested_at=NOW, route="chat"), "messages": [], "model": "m-1", "backend": "openai",
        "request_model": "m", "energy": energy,
    }  # fmt: skip
    return Completion(**fields | changes)


def test_the_estimate_is_what_the_figures_say() -> None:
    usage = Usage(input_tokens=100, cached_input_tokens=20, output_tokens=30)
    found = estimated_energy(FIGURES, usage, 360.0)
    assert found is not None
    # 1.5 x (10 + 0.5 x 80 + 2 x 30) J; a kWh is 3.6e6 J.
    assert found.joules == pytest.approx(165.0)
    assert found.co2e_grams == pytest.approx(165.0 / 3.6e6 * 360.0)
    assert found.basis == f"m@{FIGURES.version}"


def test_the_grid_where_the_model_runs_comes_before_that_of_inference_and_none_gives_no_grams() -> None:
    there = FIGURES.model_copy(update={"grid_grams_per_kwh": 0.0})
    usage = Usage(input_tokens=1)
    grams = [
        found and found.co2e_grams
        for found in (
            estimated_energy(there, usage, 360.0),
            estimated_energy(FIGURES, usage, 0.0),
            estimated_energy(FIGURES, usage, None),
        )
    ]
    assert grams == [0.0, 0.0, None]
    assert estimated_energy(None, usage, 360.0) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_cached_tokens_never_take_more_and_nothing_is_below_zero(read: int, cached: int, written: int) -> None:
    def joules(cached_tokens: int) -> float:
        usage = Usage(input_tokens=read, cached_input_tokens=cached_tokens, output_tokens=written)
        found = estimated_energy(FIGURES, usage, None)
        assert found is not None
        return found.joules

    assert 0 < joules(cached) <= joules(0)


def test_shipped_figures_say_where_they_come_from_and_belong_to_models_that_have_a_price() -> None:
    files = load_files(project_file("infra/config"))
    figures = [file.entry for file in files.kinds["energy"].values()]
    priced = {file.entry.model for file in files.kinds["prices"].values() if isinstance(file.entry, Price)}
    assert figures
    for entry in figures:
        assert isinstance(entry, EnergyFigures)
        assert entry.source.startswith("estimate: ")
        assert entry.model in priced
        assert entry.joules_per_output_token < 10, "no published figure of a token is near it: joules, not watt-hours?"
    routes = [file.entry for file in files.kinds["routes"].values() if isinstance(file.entry, Route)]
    embedded = {target.model for route in routes for target in route.targets if target.backend == "extractive"}
    assert embedded <= {entry.model for entry in figures if isinstance(entry, EnergyFigures)}


def test_the_report_adds_up_each_call_once_and_guesses_nothing() -> None:
    report = EnergyReport(("team", "model"))
    full = Energy(joules=3600.0, co2e_grams=0.5, basis="m@1")
    for completion in (
        a_completion("one", full),
        a_completion("one", full),
        a_completion("two", Energy(joules=1800.0, basis="m@1")),
        a_completion("three"),
        a_completion("four", full, cached_from="one"),
        a_completion("five", full, tenant_id="research", kind="abandoned"),
    ):
        report.add(completion)
    out = io.BytesIO()
    write(report.sheet(), "json", out)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {
            "team": "support", "model": "m", "watt_hours": 1.5, "co2e_grams": 0.5, "calls": 3,
            "calls_without_estimate": 1, "calls_without_grid": 1,
        },
        {
            "team": "research", "model": "m", "watt_hours": 1.0, "co2e_grams": 0.5, "calls": 1,
            "calls_without_estimate": 0, "calls_without_grid": 0,
        },
    ]  # fmt: skip
    assert "Estimated" in as_markdown(report.sheet())


def test_the_report_has_what_is_asked_for_alone() -> None:
    hour = timedelta(hours=1)
    report = EnergyReport(("team",), Selection(since=NOW, until=NOW + hour, team="support"))
    for number, changes in enumerate((
        {}, {"occurred_at": NOW - hour}, {"occurred_at": NOW + hour}, {"tenant_id": "research"},
    )):  # fmt: skip
        report.add(a_completion(str(number), Energy(joules=1.0, basis="m@1"), **changes))
    assert report.total.calls == 1


def test_every_dimension_has_a_value_for_a_call_without_anything() -> None:
    report = EnergyReport(tuple(ENERGY_DIMENSIONS))
    report.add(a_completion("one"))
    [row] = report.sheet().rows
    assert row[: len(ENERGY_DIMENSIONS)] == (
        "support", "", "m", "openai", "chat", "completion", "2026-01-05", "2026-01", "",
    )  # fmt: skip
