"""``penstock experiments list``: every experiment with its units by arm."""

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

from services.evaluation.experiments.advice import phase, state_of
from services.evaluation.experiments.decisions import units_by_arm
from services.evaluation.experiments.reading import Found, read_experiments

__all__ = ["list_experiments"]


@click.command("list")
@click.option("--team", help="Only experiments of this team.")
@click.option("--all", "everything", is_flag=True, help="Also those that are paused or over.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
def list_experiments(team: str | None, everything: bool, as_json: bool) -> None:
    """List the running experiments: units of each arm, and what was decided."""
    run_command(_list(team, everything, as_json))


async def _list(team: str | None, everything: bool, as_json: bool) -> None:
    async with connect() as connection:
        found = await read_experiments(connection.bus, connection.codec, team=team)
    now = datetime.now(UTC)
    chosen = [each for each in found if everything or phase(each.experiment, now) in ("running", "waiting")]
    if as_json:
        for each in chosen:
            click.echo(json.dumps(_data(each, now)))
        return
    if not chosen:
        click.echo("no experiment runs; services/evaluation/experiments/README.md says how to set one up")
        return
    table = Table("experiment", "team", "state", "requests", "units by arm", "decided", box=None, pad_edge=False)
    for each in chosen:
        data = _data(each, now)
        units = ", ".join(f"{arm} {count:,}" for arm, count in data["units"].items()) or "-"
        decided = "; ".join(_words(one) for one in data["decisions"]) or "-"
        cells = (data["experiment"], data["team"], data["state"], f"{data['requests']:,}", units, decided)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    table_console().print(table)
    click.echo("`penstock experiments show NAME` says what each metric says")


def _data(each: Found, now: datetime) -> dict[str, Any]:
    experiment, standing = each.experiment, each.standing
    return {
        "experiment": experiment.name,
        "team": experiment.team,
        "state": state_of(experiment, standing, now),
        "version": experiment.design,
        "requests": sum(standing.requests) if standing else 0,
        "units": units_by_arm(standing, experiment) if standing else {},
        "decisions": [
            {"decision": one.decision, "arm": one.arm, "metric": one.metric, "at": one.at.isoformat()}
            for one in (standing.told if standing else ())
        ],
    }


def _words(decision: dict[str, str]) -> str:
    about = " ".join(part for part in (decision["arm"], decision["metric"]) if part)
    return f"{about} {decision['decision']}".strip().replace("_", " ")
