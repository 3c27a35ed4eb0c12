"""A report's figures, as plotly.js takes them: plain data.

Names come from outside. plotly.js reads some tags in texts, so every text is escaped here; what stands in a page's script
is escaped there.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from services.drift.lookback.report_data import Drawn, Mark, Release, SegmentReport
from services.drift.lookback.report_series import Bands, Shares

__all__ = ["COLOURS", "Figure", "overview", "shown_place", "signal_figure"]

Figure = dict[str, Any]

COLOURS = {"abrupt": "#d1495b", "gradual": "#e08e00", "recurring": "#2a9d8f", "outlier": "#8e5ea2", "change": "#d1495b"}
"""By pattern."""
_LINE, _FILL, _POINT = "#2f6690", "rgba(47,102,144,0.16)", "rgba(47,102,144,0.35)"
_SEASON, _RELEASE, _REFERENCE = "#6c757d", "#5f0f9e", "rgba(108,117,125,0.10)"
_SHARES = ("#2f6690", "#e08e00", "#2a9d8f", "#d1495b", "#8e5ea2", "#8d6e63", "#577590", "#b5a642", "#4d908e", "#adb5bd")
_FONT = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif",
    "size": 12,
    "color": "#333",
}
# Marks on one figure beyond which only the newest are numbered: the table has them all.
_NUMBERED = 40


def shown_place(x: float, timed: bool) -> str | float:
    """Return a place as the axis takes it: an instant in UTC, or an index."""
    return datetime.fromtimestamp(x, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] if timed else x


def signal_figure(report: SegmentReport, drawn: Drawn, *, tall: bool) -> Figure:
    """Return the figure of one signal: its course, its changes with their windows, and releases."""
    timed = report.timed
    steps = drawn.steps
    traces = _bands(drawn, steps, timed) if isinstance(steps, Bands) else _shares(steps, timed)
    numbered = [(number, mark) for number, mark in enumerate(report.marks, 1) if mark.signal == drawn.signal]
    # Shares fill the whole height: there the windows lie above them.
    layer = "above" if isinstance(steps, Shares) else "below"
    shapes, annotations = _windows(numbered, timed, layer), _numbers(numbered, timed)
    for release in report.releases:
        shapes.append(_vertical(release.x, timed, _RELEASE, "dash", 1.2))
        annotations.append(_release_label(release, timed))
    axis: dict[str, Any] = {"gridcolor": "#eceff1", "zeroline": False, "automargin": True, "fixedrange": False}
    if isinstance(steps, Shares):
        axis |= {"range": [0, 1], "tickformat": ".0%"}
    elif steps.kind == "rate":
        axis |= {"tickformat": ".0%", "rangemode": "tozero"}
    elif steps.kind == "vector":
        axis |= {"rangemode": "tozero"}
    elif steps.positive:
        axis |= {"type": "log", "dtick": 1}
    layout = _layout(report, 250 if tall else 185) | {"yaxis": axis, "shapes": shapes, "annotations": annotations}
    layout["showlegend"] = isinstance(steps, Shares) or drawn.season is not None
    layout["legend"] = {"orientation": "h", "y": -0.16, "x": 0, "font": {"size": 11}}
    return {"data": traces, "layout": layout}


def overview(report: SegmentReport) -> Figure:
    """Return the figure of all changes of a segment: a line of time for each signal that changed."""
    signals = list(dict.fromkeys(mark.signal for mark in report.marks))
    traces: list[dict[str, Any]] = []
    for pattern in dict.fromkeys(mark.pattern for mark in report.marks):
        xs: list[str | float | None] = []
        ys: list[str | None] = []
        texts: list[str] = []
        for number, mark in enumerate(report.marks, 1):
            if mark.pattern == pattern:
                begin = mark.confirmed if mark.test is None else mark.test[0]
                text = _hover(number, mark)
                xs += [shown_place(begin, report.timed), shown_place(mark.confirmed, report.timed), None]
                ys += [_text(mark.signal), _text(mark.signal), None]
                texts += [text, text, ""]
        traces.append({
            "type": "scatter", "mode": "lines+markers", "x": xs, "y": ys, "text": texts, "hoverinfo": "text",
            "name": pattern, "line": {"color": COLOURS[pattern], "width": 7},
            "marker": {"size": 10, "symbol": "line-ns-open"},
        })  # fmt: skip
    layout = _layout(report, 90 + 26 * len(signals)) | {
        "yaxis": {"automargin": True, "gridcolor": "#eceff1", "autorange": "reversed", "type": "category"},
        "shapes": [_vertical(one.x, report.timed, _RELEASE, "dash", 1.2) for one in report.releases],
        "annotations": [_release_label(one, report.timed) for one in report.releases],
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _layout(report: SegmentReport, height: int) -> dict[str, Any]:
    pad = (report.last - report.first) * 0.01
    return {
        "height": height,
        "margin": {"l": 52, "r": 16, "t": 24, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#ffffff",
        "font": _FONT,
        "hovermode": "x unified",
        "xaxis": {
            "range": [shown_place(report.first - pad, report.timed), shown_place(report.last + pad, report.timed)],
            "type": "date" if report.timed else "linear", "gridcolor": "#eceff1", "zeroline": False,
        },
    }  # fmt: skip


def _bands(drawn: Drawn, steps: Bands, timed: bool) -> list[dict[str, Any]]:
    xs = [shown_place(band.x, timed) for band in steps.bands]
    quiet = {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    names = {"number": "mean", "rate": "share", "vector": "discrepancy"}
    shown = ".1%" if steps.kind == "rate" else ".4~g"
    around = {"number": "middle 80 %", "rate": "95 % interval", "vector": "lowest to highest"}[steps.kind]
    traces: list[dict[str, Any]] = [
        quiet | {"y": [band.low for band in steps.bands]},
        quiet | {"y": [band.high for band in steps.bands], "fill": "tonexty", "fillcolor": _FILL},
    ]
    if steps.points:
        traces.append({
            "type": "scatter", "mode": "markers", "x": [shown_place(x, timed) for x, _ in steps.points],
            "y": [y for _, y in steps.points], "marker": {"size": 3, "color": _POINT}, "hoverinfo": "skip",
            "showlegend": False,
        })  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "lines", "x": xs, "y": [band.mean for band in steps.bands],
        "customdata": [[band.count, band.low, band.high] for band in steps.bands], "name": names[steps.kind],
        "line": {"color": _LINE, "width": 1.8}, "showlegend": drawn.season is not None,
        "hovertemplate": f"%{{y:{shown}}}, {around} %{{customdata[1]:{shown}}} to %{{customdata[2]:{shown}}}, "
        "%{customdata[0]:,} values<extra></extra>",
    })  # fmt: skip
    if drawn.season is not None:
        traces.append({
            "type": "scatter", "mode": "lines", "x": [shown_place(x, timed) for x, _ in drawn.season.points],
            "y": [y for _, y in drawn.season.points], "name": f"usual for the {drawn.season.phase}", "hoverinfo": "skip",
            "line": {"color": _SEASON, "width": 1.3, "dash": "dot"},
        })  # fmt: skip
    return traces


def _shares(steps: Shares, timed: bool) -> list[dict[str, Any]]:
    xs = [shown_place(x, timed) for x in steps.xs]
    return [
        {
            "type": "scatter", "mode": "lines", "stackgroup": "shares", "x": xs, "y": shares, "name": _text(_cut(name)),
            "line": {"width": 0.4, "color": _SHARES[index % len(_SHARES)]}, "hovertemplate": "%{y:.1%}",
        }
        for index, (name, shares) in enumerate(steps.shares.items())
    ]  # fmt: skip


def _windows(numbered: Sequence[tuple[int, Mark]], timed: bool, layer: str) -> list[dict[str, Any]]:
    """Return the shaded windows and the line at which each change was confirmed."""
    shapes = []
    for _, mark in numbered:
        colour = COLOURS[mark.pattern]
        if mark.reference is not None:
            shapes.append(_area(mark.reference, timed, layer, _REFERENCE, 1.0))
        if mark.test is not None:
            shapes.append(_area(mark.test, timed, layer, colour, 0.16))
            shapes.append(_vertical(mark.test[0], timed, colour, "dot", 1.2))
        shapes.append(_vertical(mark.confirmed, timed, colour, "solid", 1.8))
    return shapes


def _area(span: tuple[float, float], timed: bool, layer: str, colour: str, opacity: float) -> dict[str, Any]:
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": shown_place(span[0], timed), "x1": shown_place(span[1], timed),
        "y0": 0, "y1": 1, "fillcolor": colour, "opacity": opacity, "line": {"width": 0}, "layer": layer,
    }  # fmt: skip


def _vertical(x: float, timed: bool, colour: str, dash: str, width: float) -> dict[str, Any]:
    return {
        "type": "line", "xref": "x", "yref": "paper", "x0": shown_place(x, timed), "x1": shown_place(x, timed), "y0": 0,
        "y1": 1, "line": {"color": colour, "width": width, "dash": dash},
    }  # fmt: skip


def _numbers(numbered: Sequence[tuple[int, Mark]], timed: bool) -> list[dict[str, Any]]:
    """Return the numbers of changes above their lines, as in the table."""
    return [
        {
            "x": shown_place(mark.confirmed, timed), "y": 1, "xref": "x", "yref": "paper", "yanchor": "bottom",
            "showarrow": False, "text": str(number), "font": {"color": "#fff", "size": 10}, "borderpad": 2,
            "bgcolor": COLOURS[mark.pattern], "hovertext": _hover(number, mark),
        }
        for number, mark in numbered[-_NUMBERED:]
    ]  # fmt: skip


def _release_label(release: Release, timed: bool) -> dict[str, Any]:
    hover = _text(f"{release.name}: {_cut(release.before) or '-'} → {_cut(release.after)}")
    return {
        "x": shown_place(release.x, timed), "y": 0, "xref": "x", "yref": "paper", "yanchor": "bottom", "xanchor": "left",
        "showarrow": False, "text": _text(release.name), "font": {"color": _RELEASE, "size": 10}, "hovertext": hover,
        "bgcolor": "rgba(255,255,255,0.7)",
    }  # fmt: skip


def _hover(number: int, mark: Mark) -> str:
    size = "" if mark.size is None else f", {mark.size:.2g} deviations"
    back = ", the baseline is back" if mark.returned else ""
    return _text(f"{number}: {mark.pattern} change of the {mark.what}{size}{back}")


def _cut(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(text: str) -> str:
    return html.escape(text, quote=False)
