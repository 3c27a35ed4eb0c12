"""A report as one HTML page that needs nothing else: it opens offline, and loads nothing over the network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from services.drift.lookback.report_data import Mark, SegmentReport
from services.drift.lookback.report_figures import COLOURS, Figure, overview, signal_figure

__all__ = ["Allowed", "page"]

# Whatever a name in the data might hold, the browser runs and fetches nothing but what stands in the page.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)

_STYLE = """
:root { --ink: #1f2933; --soft: #66757f; --line: #e1e5e9; --paper: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
  color: var(--ink); background: var(--paper); }
main { max-width: 1280px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 8px; overflow-wrap: anywhere; }
h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; } h3 small { font-weight: 400; color: var(--soft); }
p { margin: 4px 0 12px; } .soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; min-width: 120px; }
.card b { display: block; font-size: 22px; line-height: 1.2; } .card span { color: var(--soft); font-size: 12px; }
.figure { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px 4px; margin: 0 0 14px;
  min-width: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 14px; }
.grid .figure { margin: 0; }
.scroll { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 8px; margin: 0 0 18px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } tr:last-child td { border-bottom: 0; }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.w { white-space: nowrap; } td code, li code { font-size: 12px; overflow-wrap: anywhere; } .thin { white-space: nowrap; }
.tag { color: #fff; border-radius: 4px; padding: 1px 7px; font-size: 12px; white-space: nowrap; }
.keys { display: flex; flex-wrap: wrap; gap: 6px 18px; color: var(--soft); font-size: 12px; margin: 0 0 14px; }
.keys i { display: inline-block; width: 14px; height: 10px; border-radius: 2px; margin-right: 5px; }
details { margin: 0 0 6px; } summary { cursor: pointer; color: #2f6690; } a { color: #2f6690; }
ul { margin: 4px 0; padding-left: 20px; }
@media (max-width: 620px) { main { padding: 12px; } .grid { grid-template-columns: minmax(0, 1fr); } }
@media print { body { background: #fff; } .figure, .scroll { break-inside: avoid; } }
"""

_SCRIPT = """
const figures = JSON.parse(document.getElementById('figures').textContent);
const options = {responsive: true, displayModeBar: false};
const draw = (element) => {
  const figure = figures[element.dataset.figure];
  if (element.dataset.drawn) return;
  element.dataset.drawn = '1';
  Plotly.newPlot(element, figure.data, figure.layout, options);
};
const observer = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) { observer.unobserve(entry.target); draw(entry.target); }
}), {rootMargin: '600px'});
document.querySelectorAll('[data-figure]').forEach((element) => observer.observe(element));
window.addEventListener('beforeprint', () => document.querySelectorAll('[data-figure]').forEach(draw));
"""


class Allowed(msgspec.Struct, frozen=True):
    """The false-alarm budget of the period: in words what is allowed, and how much that comes to."""

    rule: str
    expected: float


def page(reports: Sequence[SegmentReport], *, title: str, source: str, made_at: datetime, allowed: Allowed) -> str:
    """Return the page.

    Args:
        reports: the segments, each with its signals, changes and releases.
        title: what it is about.
        source: where the events were read, in words.
        made_at: when the page was made.
        allowed: the false-alarm budget.
    """
    figures: list[Figure] = []
    sections = [_section(report, index, figures) for index, report in enumerate(reports)]
    marks = [mark for report in reports for mark in report.marks]
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">{_text(source)}; {_text(_period(reports))}. Made {_place(made_at.timestamp(), True)} UTC.</p>',
        _cards(reports, marks, allowed),
        _keys(),
        _contents(reports) if len(reports) > 1 else "",
        *sections,
        _requests(marks),
    ]
    # "<" cannot stand in a script's data: "</script>" would end it.
    data = msgspec.json.encode(figures).decode().replace("<", "\\u003c")
    return "\n".join([
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style>", "</head>", "<body>", "<main>", *filter(None, body), "</main>",
        f'<script type="application/json" id="figures">{data}</script>', f"<script>{get_plotlyjs()}</script>",
        f"<script>{_SCRIPT}</script>", "</body>", "</html>", "",
    ])  # fmt: skip


def _section(report: SegmentReport, index: int, figures: list[Figure]) -> str:
    changed = {mark.signal for mark in report.marks}
    parts = [f'<h2 id="s{index}">{_text(report.segment)}</h2>']
    if report.marks:
        parts.append(
            _figure("Changes", f"{len(report.marks)} changes of {len(changed)} signals", overview(report), figures)
        )
        parts.append(_table(report))
    else:
        parts.append("<p>Nothing changed.</p>")
    tall = [drawn for drawn in report.signals if drawn.signal in changed]
    rest = [drawn for drawn in report.signals if drawn.signal not in changed]
    for drawn in tall:
        note = _note(drawn.kind, drawn.values, drawn.steps)
        parts.append(_figure(drawn.signal, note, signal_figure(report, drawn, tall=True), figures))
    if rest:
        grid = [
            _figure(
                drawn.signal,
                _note(drawn.kind, drawn.values, drawn.steps),
                signal_figure(report, drawn, tall=False),
                figures,
            )
            for drawn in rest
        ]
        parts.append(
            f'<h3 class="soft" style="margin:18px 0 8px">Without a change</h3><div class="grid">{"".join(grid)}</div>'
        )
    return "\n".join(parts)


def _note(kind: str, values: int, steps: object) -> str:
    what = "distance from the first 200 in units of chance, " if getattr(steps, "kind", "") == "vector" else ""
    return f"{what}{values:,} values" + (f", {kind}" if kind else "")


def _figure(name: str, note: str, figure: Figure, figures: list[Figure]) -> str:
    figures.append(figure)
    height = figure["layout"]["height"]
    return (
        f'<div class="figure"><h3>{_text(name)} <small>{_text(note)}</small></h3>'
        f'<div data-figure="{len(figures) - 1}" style="height:{height}px"></div></div>'
    )


def _table(report: SegmentReport) -> str:
    rows = [_row(report, number, mark) for number, mark in enumerate(report.marks, 1)]
    head = (
        "#", "signal", "how", "began", "confirmed", "before → after", "size", "evidence", "likely cause", "requests",
        "from where",
    )  # fmt: skip
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f'<div class="scroll"><table><tr>{titles}</tr>{"".join(rows)}</table></div>'


def _row(report: SegmentReport, number: int, mark: Mark) -> str:
    colour = COLOURS[mark.pattern]
    how = f'<span class="tag" style="background:{colour}">{_text(mark.pattern)}</span><br>{_text(mark.what)}'
    if mark.drift:
        how += f", {_text(mark.drift)}"
    if mark.returned:
        how += "<br>the baseline is back"
    evidence = "-" if mark.statistic is None else f"{mark.statistic:.3g}"
    if mark.threshold is not None:
        evidence += f" of {mark.threshold:.3g}"
    if mark.alpha is not None:
        evidence += f'<br><span class="soft">chance {mark.alpha:.1e}</span>'
    causes = "<br>".join(map(_text, mark.causes)) or "-"
    if len(mark.contributions) > 1:
        shares = list(mark.contributions.items())[:3]
        causes += "<br>" + "<br>".join(f'<span class="soft">{share:.0%} {_text(name)}</span>' for name, share in shares)
    where = "<br>".join(map(_text, mark.where)) or "-"
    return (
        f'<tr><td class="n">{number}</td><td>{_text(mark.signal)}</td><td>{how}</td>'
        f'<td class="thin">{_place(None if mark.test is None else mark.test[0], report.timed)}</td>'
        f'<td class="thin">{_place(mark.confirmed, report.timed)}</td><td class="w">{_figures(mark)}</td>'
        f'<td class="n">{"-" if mark.size is None else f"{mark.size:.2f}"}</td><td class="n">{evidence}</td>'
        f"<td>{causes}</td><td>{_samples(mark)}</td><td><details><summary>ranges</summary>{where}</details></td></tr>"
    )


def _figures(mark: Mark) -> str:
    names = [*mark.before, *(name for name in mark.after if name not in mark.before)]
    lines = [f"{_text(name)} {_number(mark.before.get(name))} → {_number(mark.after.get(name))}" for name in names[:8]]
    return "<br>".join(lines) or "-"


def _samples(mark: Mark) -> str:
    parts = []
    for name, samples in (("before", mark.samples_before), ("after", mark.samples_after)):
        if samples:
            links = " ".join(f'<a href="#{_anchor(one)}"><code>{_text(one[:8])}</code></a>' for one in samples)
            parts.append(f"{name}: {links}")
    return "<br>".join(parts) or "-"


def _requests(marks: Sequence[Mark]) -> str:
    """Return the list that the tables' samples lead to: how each request's story is told."""
    requests = dict.fromkeys(one for mark in marks for one in (*mark.samples_before, *mark.samples_after))
    if not requests:
        return ""
    lines = "".join(f'<li id="{_anchor(one)}"><code>penstock audit show {_text(one)}</code></li>' for one in requests)
    return f"<h2>Requests</h2><p>Every event of a sample request, oldest first:</p><ul>{lines}</ul>"


def _cards(reports: Sequence[SegmentReport], marks: Sequence[Mark], allowed: Allowed) -> str:
    newest = {
        (report.segment, mark.signal): mark for report in reports for mark in report.marks if mark.pattern != "outlier"
    }
    away = sum(not mark.returned for mark in newest.values())
    spent = [mark.alpha for mark in marks if mark.alpha is not None]
    cards: list[tuple[str, str]] = [
        (f"{sum(report.events for report in reports):,}", "events"),
        (f"{sum(len(report.signals) for report in reports)}", "signals"),
        (f"{len(marks)}", "changes"),
        (f"{away}", "signals away from their baseline"),
        (f"{allowed.expected:.2g}", f"false alarms expected at most: {allowed.rule}"),
    ]
    if spent:
        cards.append((f"{sum(spent):.2g}", "of that was spent on these changes"))
    inner = "".join(f'<div class="card"><b>{_text(value)}</b><span>{_text(name)}</span></div>' for value, name in cards)
    return f'<div class="cards">{inner}</div>'


def _keys() -> str:
    keys: Mapping[str, str] = {
        "mean or share, with the middle 80 % or its 95 % interval": "#2f6690",
        "reference": "rgba(108,117,125,0.3)",
        **{f"{name} change: its window, to the moment it was confirmed": colour for name, colour in COLOURS.items()},
        "release": "#5f0f9e",
        "drag to zoom, double-click to see all again": "transparent",
    }
    keys = {name: colour for name, colour in keys.items() if not name.startswith("change ")}
    inner = "".join(f'<span><i style="background:{colour}"></i>{_text(name)}</span>' for name, colour in keys.items())
    return f'<div class="keys">{inner}</div>'


def _contents(reports: Sequence[SegmentReport]) -> str:
    lines = "".join(
        f'<li><a href="#s{index}">{_text(report.segment)}</a>: {len(report.marks)} changes, {report.events:,} events</li>'
        for index, report in enumerate(reports)
    )
    return f"<ul>{lines}</ul>"


def _period(reports: Sequence[SegmentReport]) -> str:
    held = [report for report in reports if report.events]
    if not held:
        return "no events"
    first, last = min(report.first for report in held), max(report.last for report in held)
    if held[0].timed:
        return f"{_place(first, True)} to {_place(last, True)} UTC"
    return f"index {first:,.0f} to {last:,.0f}"


def _place(x: float | None, timed: bool) -> str:
    if x is None:
        return "-"
    return f"{datetime.fromtimestamp(x, UTC):%Y-%m-%d %H:%M}" if timed else f"{x:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _anchor(request: str) -> str:
    return "r-" + html.escape(
        "".join(char if char.isalnum() or char in "-_" else f"_{ord(char):x}_" for char in request)
    )


def _text(text: str) -> str:
    return html.escape(text)
