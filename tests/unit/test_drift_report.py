"""``penstock drift report``: the page, and the figures in it."""

from __future__ import annotations

import html.parser
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from penstock.contracts.records import DriftEvent, LogRange, Release

from services.drift.lookback.command_report import report
from services.drift.lookback.replay_lines import Event, Place
from services.drift.lookback.report_data import Gathered, of_drift_event
from services.drift.lookback.report_figures import overview, signal_figure
from services.drift.lookback.report_page import Allowed, page
from services.drift.lookback.report_series import BUCKETS, Bands, Shares, collector

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
HOSTILE = "</script><script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: tags, addresses and the figures' data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.policy = ""
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        self.figures: list[Any] = json.loads(self.scripts[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.addresses += [str(named[name]) for name in ("src", "href", "action") if name in named]
        self.ids += [str(named["id"])] if "id" in named else []
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(named["content"])
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["script"] and self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def draw(folder: Path, lines: list[Any], *arguments: str) -> tuple[Result, Path]:
    source, out = folder / "stream.jsonl", folder / "out.html"
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return CliRunner().invoke(report, ["--file", str(source), "-o", str(out), *arguments]), out


def moved(seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, 600), rng.normal(3, 1, 300)]).tolist()


def test_a_page_holds_all_it_needs_and_runs_nothing_that_data_brings(tmp_path: Path) -> None:
    lines = [
        {
            "segment": f"team|{HOSTILE}",
            "values": {f"score{HOSTILE}": value, "other": 0.5},
            "categories": {"kind": HOSTILE},
        }
        for value in moved()
    ]
    result, out = draw(tmp_path, lines)
    assert result.exit_code == 0, result.output
    assert "1 segments, 1 changes" in result.stdout
    text = out.read_text(encoding="utf-8")
    found = Page(text)
    assert found.tags.count("script") == 3, "the data, the library, and the few lines that draw"
    assert HOSTILE not in text
    assert f"score{HOSTILE}" in found.text, "shown as the text that it is"
    assert all(address.startswith("#") for address in found.addresses), found.addresses
    assert "default-src 'none'" in found.policy
    assert "plotly" in found.scripts[1][:2000].lower()
    (changes, score, *rest) = found.figures
    assert len(rest) == 2
    assert changes["data"][0]["name"] == "abrupt"
    assert "&lt;/script&gt;" in changes["data"][0]["y"][0], "plotly.js reads tags in texts"
    numbers = [note for note in score["layout"]["annotations"] if note["text"] == "1"]
    assert len(numbers) == 1
    assert 600 <= numbers[0]["x"] < 650
    windows = [shape for shape in score["layout"]["shapes"] if shape["type"] == "rect"]
    assert [window["x0"] for window in windows] == [0, pytest.approx(600, abs=12)]
    assert not rest[0]["layout"]["shapes"]


def test_the_table_tells_the_change_in_words(tmp_path: Path) -> None:
    start = AT
    lines = [
        {"segment": "t|m|v|r", "signal": "model.latency_ms", "value": float(800 * np.exp(value / 3)),
         "timestamp": (start + timedelta(minutes=index)).isoformat()}
        for index, value in enumerate(moved())
    ]  # fmt: skip
    result, out = draw(tmp_path, lines)
    assert result.exit_code == 0, result.output
    text = Page(out.read_text(encoding="utf-8")).text
    for part in (
        "model.latency_ms",
        "abrupt",
        "geometric_mean",
        "900 values, latency",
        "2026-01-05 19:",
        "in 10,000 values",
    ):
        assert part in text, part


def test_a_hundred_thousand_events_of_twenty_signals_stay_a_small_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (5000, 20)).round(3).tolist()
    result, out = draw(tmp_path, [{"values": {f"signal {i}": v for i, v in enumerate(row)}} for row in rows])
    assert result.exit_code == 0, result.output
    assert out.stat().st_size < 7_000_000
    drawn = Page(out.read_text(encoding="utf-8"))
    lengths = [len(trace["x"]) for figure in drawn.figures for trace in figure["data"]]
    assert max(lengths) <= BUCKETS
    assert {figure["layout"]["height"] for figure in drawn.figures} >= {185}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--segment, --team or --file"),
        (["--segment", "team"], 2, "'team' is no segment"),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(report, arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_bad_line_writes_no_page(tmp_path: Path) -> None:
    source, out = tmp_path / "s.jsonl", tmp_path / "out.html"
    source.write_text("1\noops\n")
    result = CliRunner().invoke(report, ["--file", str(source), "-o", str(out)])
    assert result.exit_code == 2
    assert "line 2 (index 1)" in result.stderr
    assert not out.exists()


def test_buckets_keep_mean_count_and_spread_of_what_is_in_them() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 60_000)
    gathered = collector(0.0)
    for index, value in enumerate(values.tolist()):
        gathered.add(float(index), value)
    steps = gathered.drawn()
    assert isinstance(steps, Bands)
    assert (steps.kind, len(steps.bands), steps.points) == ("number", BUCKETS, [])
    assert sum(band.count for band in steps.bands) == 60_000
    whole = sum(band.count * band.mean for band in steps.bands) / 60_000
    assert whole == pytest.approx(float(values.mean()))
    assert np.mean([band.low for band in steps.bands]) == pytest.approx(5 - 1.2816 * 2, abs=0.1)


def test_a_rate_has_the_interval_of_wilson() -> None:
    gathered = collector(0.0)
    for index in range(8):
        gathered.add(float(index), float(index == 0))
    steps = gathered.drawn()
    assert isinstance(steps, Bands)
    (band,) = steps.bands
    assert (steps.kind, band.mean) == ("rate", 0.125)
    # statsmodels' proportion_confint(1, 8, method="wilson")
    assert (band.low, band.high) == (pytest.approx(0.02241, abs=1e-4), pytest.approx(0.47091, abs=1e-4))


def test_shares_add_up_and_rare_categories_are_one() -> None:
    gathered = collector("x")
    rng = np.random.default_rng(4)
    for index, code in enumerate(rng.geometric(0.25, 4000)):
        gathered.add(float(index), f"category {code}")
    steps = gathered.drawn()
    assert isinstance(steps, Shares)
    assert len(steps.shares) == 9
    assert sum("others" in name for name in steps.shares) == 1
    assert np.sum(list(steps.shares.values()), axis=0) == pytest.approx(1.0)


def test_the_discrepancy_of_vectors_is_about_1_until_they_move() -> None:
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((2, 32))
    gathered = collector(centres[0].astype(np.float32))
    for index in range(1600):
        gathered.add(float(index), (centres[int(index >= 1000)] + rng.standard_normal(32)).astype(np.float32))
    steps = gathered.drawn()
    assert isinstance(steps, Bands)
    before = [band.mean for band in steps.bands if band.x < 990]
    assert 0.3 < np.mean(before) < 2.5
    assert min(band.mean for band in steps.bands if band.x > 1110) > 5 * max(before)


def test_releases_causes_and_requests_of_a_drift_event_are_drawn() -> None:
    gathered = Gathered("t|m|v2|r", timed=True)
    for number in range(200):
        at = AT + timedelta(seconds=number)
        gathered.add(Event(number, "t|m|v2|r", "retrieval.score", at, 0.5, Place("signals", 1, 10 * number)))
        gathered.saw({"model": "m2" if number >= 120 else "m1"}, at.timestamp())
    event = DriftEvent(
        event_id="e1", request_id="r150", tenant_id="t", occurred_at=AT + timedelta(seconds=150), causation_id="c",
        segment="t|m|v2|r", signal="retrieval.score", detector="d", kind="retrieval", statistic=9.5, threshold=7.0,
        before={"mean": 0.7}, after={"mean": 0.4}, size=-2.5, alpha=1e-3, pattern="gradual",
        reference=[LogRange(topic="signals", partition=1, first_offset=0, last_offset=1195)],
        test=[LogRange(topic="signals", partition=1, first_offset=1200, last_offset=1500)],
        sample_before=["r100"], sample_after=["r140", "<b>"],
        releases=[Release(name="prompt", before="v1", after="v2", since=AT + timedelta(seconds=118), first_offset=1180)],
        contributions={"t|m|v2|r": 0.75, "t|n|v2|r": 0.25},
    )  # fmt: skip
    mark, releases = of_drift_event(event, gathered)
    assert mark.reference == (AT.timestamp(), (AT + timedelta(seconds=120)).timestamp())
    assert mark.test == ((AT + timedelta(seconds=120)).timestamp(), (AT + timedelta(seconds=150)).timestamp())
    made = gathered.report([mark], releases)
    assert [(one.name, one.before, one.after) for one in made.releases] == [
        ("prompt", "v1", "v2"),
        ("model", "m1", "m2"),
    ]
    figure = signal_figure(made, made.signals[0], tall=True)
    labels = [note["text"] for note in figure["layout"]["annotations"]]
    assert labels == ["1", "prompt", "model"]
    assert overview(made)["data"][0]["x"][:2] == ["2026-01-05T09:02:00.000", "2026-01-05T09:02:30.000"]
    text = page([made], title="t", source="s", made_at=AT, allowed=Allowed("1 a day", 1.0))
    found = Page(text)
    for part in (
        "prompt v1 → v2",
        "75% t|m|v2|r",
        "signals 1, offsets 1200 to 1500",
        "penstock audit show r140",
        "gradual",
    ):
        assert part in found.text, part
    links = {address[1:] for address in found.addresses}
    assert links == {"r-r100", "r-r140", "r-_3c_b_3e_"} <= set(found.ids), "every request is found on the page"


def test_a_rhythm_of_the_day_is_drawn_as_what_is_usual() -> None:
    gathered = Gathered("t|m|v|r", timed=True)
    rng = np.random.default_rng(6)
    for number in range(24 * 4 * 20):
        at = AT + timedelta(minutes=3 * number)
        wave = np.sin(at.hour / 24 * 2 * np.pi)
        for name, value in (("busy", 3 * wave + rng.normal(0, 0.5)), ("flat", rng.normal(0, 0.5))):
            gathered.add(Event(number, "t|m|v|r", name, at, float(value)))
    busy, flat = gathered.report([]).signals
    assert flat.season is None
    assert busy.season is not None
    assert busy.season.phase == "hour of day"
    values = [value for _, value in busy.season.points]
    assert max(values) - min(values) > 3
