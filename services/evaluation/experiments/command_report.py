"""``penstock experiments report``: an experiment as a page of its own, to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import click
from penstock.cli.connection import run_command

from services.evaluation.experiments.command_show import described, found_by_name

__all__ = ["page", "report"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; }
th { color: #5b6b7c; font-weight: 500; border-bottom: 1px solid #d5dde5; } .n { text-align: right; }
.next { background: #eef4fa; padding: .8rem 1rem; border-left: 4px solid #2f6db3; } .bad { border-color: #b3402f; }
.fine { color: #5b6b7c; }
"""
_WIDTH, _HEIGHT = 260, 22


@click.command("report")
@click.argument("name")
@click.option(
    "--html", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write the page to."
)
def report(name: str, path: Path) -> None:
    """Write what experiment NAME says as an HTML page that needs nothing else."""
    now = datetime.now(UTC)
    pages: list[str] = []

    async def read() -> None:
        pages.append(page(described(await found_by_name(name), now), now))

    run_command(read())
    try:
        path.write_text(pages[0], "utf-8")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {path}")


def page(data: dict[str, Any], now: datetime) -> str:
    """Return the page of an experiment, as ``described`` gives it."""
    title = escape(f"Experiment {data['experiment']}")
    mismatch = bool(data["ratio"] and data["ratio"]["mismatch"])
    parts = [
        f"<h1>{title}</h1>",
        f"<p class=fine>Team {escape(data['team'])}, {data['state']}, design {data['version']}; observations up to "
        f"{escape(data['as_of'] or 'none')}, written {now:%Y-%m-%d %H:%M} UTC.</p>",
        f"<div class='next{' bad' if mismatch else ''}'>{'<br>'.join(map(escape, data['advice']))}</div>",
        "<h2>Arms</h2>",
        _table(
            ("arm", "answers with", "weight", "requests", "units (about)"),
            [
                (a["arm"], a["what"], f"{a['weight']:.1%}", f"{a['requests']:,}", f"{a['units']:,}")
                for a in data["arms"]
            ],
        ),
    ]
    if data["ratio"]:
        parts.append(
            f"<p>Ratio of the arms: {'mismatch, so nothing else counts' if mismatch else 'as the weights say'} "
            f"(always-valid p {data['ratio']['p_value']:.3g}, level {data['ratio']['level']:g}).</p>"
        )
    if data["comparisons"]:
        parts += ["<h2>Against the control</h2>", _comparisons(data["comparisons"])]
        parts.append(
            f"<p class=fine>Each interval holds the true difference at all times together with {data['confidence']:.2%} "
            f"confidence; all of them and the ratio do with {1 - data['alpha']:.0%}. The dashed line is no difference, the "
            "band the margin.</p>"
        )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"{''.join(parts)}</html>\n"
    )


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> str:
    head = ("arm", "metric", "role", "control", "arm's", "difference", "interval", "p", "decided")
    rows = "".join(_row(one) for one in comparisons)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{rows}</table>"


def _row(one: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return f"<td class=n>{'-' if value is None else f'{value:.4g}'}</td>"

    names = "".join(f"<td>{escape(str(one[name]))}</td>" for name in ("arm", "metric"))
    role = f"<td>{one['role']}, {one['better']} is better</td>"
    figures = "".join(number(one[name]) for name in ("control", "mean", "difference"))
    p_value = number(one["p_value"] if one["low"] is not None else None)
    drawn = escape(one["note"]) if one["low"] is None else _interval(one)
    decided = escape(one["decision"].replace("_", " ") or ("not harmed" if one["held"] else "-"))
    return f"<tr>{names}{role}{figures}<td>{drawn}</td>{p_value}<td>{decided}</td></tr>"


def _interval(one: dict[str, Any]) -> str:
    """Draw an interval around its difference, with zero and the margin."""
    low, high, margin = float(one["low"]), float(one["high"]), float(one["margin"])
    reach = max(abs(low), abs(high), margin, 1e-300) * 1.1

    def at(value: float) -> float:
        return round((value / reach + 1) / 2 * _WIDTH, 1)

    certain = low > 0 or high < 0
    middle, colour = _HEIGHT / 2, "#2f6db3" if certain else "#7a8794"
    band = (
        f"<rect x='{at(-margin)}' y='2' width='{at(margin) - at(-margin):.1f}' height='{_HEIGHT - 4}' fill='#e6ebf0'/>"
    )
    zero = f"<line x1='{at(0)}' x2='{at(0)}' y1='0' y2='{_HEIGHT}' stroke='#333' stroke-dasharray='2 2'/>"
    line = f"<line x1='{at(low)}' x2='{at(high)}' y1='{middle}' y2='{middle}' stroke='{colour}' stroke-width='3'/>"
    dot = f"<circle cx='{at(one['difference'])}' cy='{middle}' r='4' fill='{colour}'/>"
    label = escape(f"{low:.4g} to {high:.4g}")
    return f"<svg width='{_WIDTH}' height='{_HEIGHT}' role='img'><title>{label}</title>{band}{zero}{line}{dot}</svg>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
