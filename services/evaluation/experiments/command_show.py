"""``penstock experiments show``: what an experiment says, metric by metric, and what to do next."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.printable import printable
from rich.markup import escape
from rich.table import Table

from services.evaluation.experiments.advice import advice, arms_say, held, state_of
from services.evaluation.experiments.comparison import Comparison, levels
from services.evaluation.experiments.decisions import units_by_arm
from services.evaluation.experiments.reading import Found, read_experiments

__all__ = ["described", "found_by_name", "show"]


@click.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def show(name: str, as_json: bool) -> None:
    """Show means, differences and confidence sequences of experiment NAME, and what to do next."""
    run_command(_show(name, as_json))


async def _show(name: str, as_json: bool) -> None:
    now = datetime.now(UTC)
    data = described(await found_by_name(name), now)
    if as_json:
        click.echo(json.dumps(data))
        return
    console = table_console()
    click.echo(printable(f"{data['experiment']} of {data['team']}: {data['state']}, design {data['version']}"))
    arms = Table("arm", "answers with", box=None, pad_edge=False)
    for column in ("weight", "requests", "units (about)"):
        arms.add_column(column, justify="right")
    for arm in data["arms"]:
        cells = (arm["arm"], arm["what"], f"{arm['weight']:.1%}", f"{arm['requests']:,}", f"{arm['units']:,}")
        arms.add_row(*(escape(printable(cell)) for cell in cells))
    console.print(arms)
    if data["ratio"]:
        ratio = data["ratio"]
        verdict = "MISMATCH: nothing else counts" if ratio["mismatch"] else "as the weights say"
        click.echo(f"ratio of the arms: {verdict} (always-valid p {ratio['p_value']:.3g}, level {ratio['level']:g})")
    if data["comparisons"]:
        table = Table("arm", "metric", "role", box=None, pad_edge=False)
        for column in ("control", "arm's", "difference", f"{data['confidence']:.2%} at all times", "p"):
            table.add_column(column, justify="right")
        table.add_column("decided")
        for one in data["comparisons"]:
            table.add_row(*(escape(printable(cell)) for cell in _cells(one)))
        console.print(table)
    for sentence in data["advice"]:
        click.echo(sentence)


async def found_by_name(name: str) -> Found:
    """Return the experiment ``name``.

    Raises:
        click.ClickException: there is none.
    """
    async with connect() as connection:
        found = await read_experiments(connection.bus, connection.codec, names={name})
    if not found:
        raise click.ClickException(
            f"no experiment {name!r} is configured; `penstock experiments list --all` names those that are, and "
            "`penstock tail experiment-events --from-start --no-follow` tells what was decided of others"
        )
    return found[0]


def described(found: Found, now: datetime) -> dict[str, Any]:
    """Return all that is said of an experiment as plain data."""
    experiment, standing = found.experiment, found.standing
    spent, weights = levels(experiment), sum(arm.weight for arm in experiment.arms)
    units = units_by_arm(standing, experiment) if standing else {}
    comparisons = [
        {
            "arm": each.arm.name, "metric": c.metric.name, "role": c.metric.role, "better": c.metric.better,
            "margin": c.metric.margin, "mean": c.mean, "control": c.control, "difference": c.difference, "low": c.low,
            "high": c.high, "p_value": p, "decision": decision, "note": _note(c, found),
            "held": held(c) if c.metric.role == "guard" else None,
        }
        for each in (arms_say(experiment, standing) if standing else ())
        for c, p, decision in zip(each.comparisons, each.p_values, each.decisions, strict=True)
    ]  # fmt: skip
    return {
        "experiment": experiment.name,
        "team": experiment.team,
        "state": state_of(experiment, standing, now),
        "version": experiment.design,
        "alpha": experiment.alpha,
        "confidence": 1 - spent.comparison,
        "as_of": standing.newest.isoformat() if standing else None,
        "arms": [
            {
                "arm": arm.name, "what": experiment.answers_with(arm), "weight": arm.weight / weights,
                "requests": standing.requests[index] if standing else 0, "units": units.get(arm.name, 0),
            }
            for index, arm in enumerate(experiment.arms)
        ],
        "ratio": {"p_value": standing.ratio_p_value, "level": spent.ratio, "mismatch": standing.mismatched}
        if standing and experiment.tests_ratio
        else None,
        "comparisons": comparisons,
        "told": [
            {
                "decision": e.decision, "arm": e.arm, "metric": e.metric, "at": e.occurred_at.isoformat(),
                "event_id": e.event_id,
            }
            for e in found.told
        ],
        "former_decisions": found.former,
        "advice": advice(experiment, standing, now),
    }  # fmt: skip


def _note(comparison: Comparison, found: Found) -> str:
    if comparison.low is not None:
        return ""
    if comparison.metric.name == "cost" and found.standing is not None and any(found.standing.unpriced):
        return "some calls have no price"
    return "too few units or requests"


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    between = one["note"] if one["low"] is None else f"{number(one['low'])} .. {number(one['high'])}"
    p_value = "-" if one["low"] is None else f"{one['p_value']:.2g}"
    decided = one["decision"].replace("_", " ") or ("not harmed" if one["held"] else "-")
    shown = (number(one["control"]), number(one["mean"]), number(one["difference"]), between, p_value, decided)
    return (one["arm"], one["metric"], f"{one['role']}, {one['better']}", *shown)
