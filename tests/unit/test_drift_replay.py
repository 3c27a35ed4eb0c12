"""``penstock drift replay`` over files: the lines that it prints, and what it says of their quality."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from services.drift.lookback.command_replay import replay
from services.drift.lookback.replay import Filter, Replay, chosen
from services.drift.lookback.replay_detectors import DETECTORS, factory
from services.drift.lookback.replay_finding import UnknownParameter
from services.drift.lookback.replay_lines import Event

PROJECT = Path(__file__).resolve().parents[2]
FIELDS = [
    "index", "kind", "segment", "signal", "detector", "change_index", "what", "returned", "size", "statistic", "threshold",
    "before", "after", "evidence",
]  # fmt: skip


def step(seed: int, before: int = 600, after: int = 300, by: float = 3.0) -> list[float]:
    """Return numbers that go up by so many deviations."""
    rng = np.random.default_rng(seed)
    return [round(value, 6) for value in np.concatenate([rng.normal(0, 1, before), rng.normal(by, 1, after)]).tolist()]


def run(lines: Sequence[Any], *arguments: str) -> Result:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return CliRunner().invoke(replay, ["-", *arguments], input=text)


def found(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_detection_is_one_line_with_where_and_why() -> None:
    result = run([{"value": value, "segment": "a"} for value in step(1)])
    assert result.exit_code == 0, result.output
    (line,) = found(result)
    assert list(line) == FIELDS
    assert (line["kind"], line["segment"], line["signal"], line["detector"], line["what"]) == (
        "abrupt", "a", "value", "penstock", "level",
    )  # fmt: skip
    assert 600 <= line["index"] < 640
    assert 590 <= line["change_index"] <= 605
    assert line["statistic"] > line["threshold"] > 0
    assert line["before"]["mean"] == pytest.approx(0, abs=0.2)
    assert line["after"]["mean"] == pytest.approx(3, abs=0.8)
    assert line["size"] == pytest.approx(3, abs=0.8)
    reference, test = line["evidence"]["reference"], line["evidence"]["test"]
    assert (reference["first_index"], reference["last_index"]) == (0, line["change_index"] - 1)
    assert (test["first_index"], test["last_index"]) == (line["change_index"], line["index"])
    assert reference["count"] >= 500
    assert 3 <= test["count"] <= 50


def test_the_same_stream_in_every_form_gives_the_same_detections() -> None:
    values = step(2)
    forms = [
        values,
        [{"value": value} for value in values],
        [{"latency": value, "timestamp": 1_767_600_000 + index} for index, value in enumerate(values)],
        [line for value in values for line in (json.dumps({"x": value}), "")],
    ]
    places = [[(one["index"], one["change_index"]) for one in found(run(form))] for form in forms]
    assert len(places[0]) == 1
    assert places.count(places[0]) == 4, "blank lines do not count, and neither names nor instants matter"


def test_interleaved_segments_are_watched_apart_and_indices_are_those_of_the_file() -> None:
    quiet, moved = np.random.default_rng(3).normal(0, 1, 900).tolist(), step(4)
    lines = [
        {"segment": name, "value": value}
        for pair in zip(quiet, moved, strict=True)
        for name, value in zip("ab", pair, strict=True)
    ]
    together = found(run(lines))
    alone = found(run([line for line in lines if line["segment"] == "b"]))
    assert [one["segment"] for one in together] == ["b"]
    assert [one["index"] for one in together] == [2 * one["index"] + 1 for one in alone]
    assert found(run(lines, "--segment", "b")) == together
    assert found(run(lines, "--segment", "a")) == []


def test_signals_of_one_line_are_watched_apart() -> None:
    quiet, moved = np.random.default_rng(3).normal(0, 1, 900).tolist(), step(4)
    lines = [{"values": {"cost": q, "score": m}} for q, m in zip(quiet, moved, strict=True)]
    assert [one["signal"] for one in found(run(lines))] == ["score"]
    assert found(run(lines, "--signal", "cost")) == []


def test_an_amount_that_is_declared_is_told_in_its_own_unit() -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([800 * rng.lognormal(0, 0.3, 600), 1600 * rng.lognormal(0, 0.3, 300)]).tolist()
    (line,) = found(run([{"signal": "model.latency_ms", "value": value} for value in values]))
    assert line["before"]["geometric_mean"] == pytest.approx(800, rel=0.1)
    assert line["after"]["geometric_mean"] == pytest.approx(1600, rel=0.25)


def test_categories_and_vectors_are_watched_too() -> None:
    rng = np.random.default_rng(6)
    languages = [
        *rng.choice(["en", "de"], 500, p=[0.9, 0.1]).tolist(),
        *rng.choice(["en", "fr"], 200, p=[0.4, 0.6]).tolist(),
    ]
    (mixture,) = found(run([{"category": language} for language in languages]))
    assert (mixture["what"], mixture["kind"]) == ("mixture", "abrupt")
    assert 500 <= mixture["index"] < 560
    centres = rng.standard_normal((2, 64))
    vectors = [(centres[int(index >= 300)] + rng.standard_normal(64)).round(4).tolist() for index in range(420)]
    (topic,) = found(run(vectors))
    assert (topic["what"], topic["kind"]) == ("topic", "abrupt")
    assert 300 <= topic["index"] < 340


@pytest.mark.parametrize("detector", [name for name in DETECTORS if name not in ("penstock", "mmd", "centroid")])
def test_every_other_detector_finds_a_large_change_of_errors(detector: str) -> None:
    rng = np.random.default_rng(7)
    values = np.concatenate([rng.random(1000) < 0.1, rng.random(500) < 0.8]).astype(int).tolist()
    lines = found(run(values, "--detector", detector))
    after = [one for one in lines if one["index"] >= 1000]
    assert after
    assert after[0]["index"] < 1300
    assert (after[0]["detector"], after[0]["kind"]) == (detector, None)
    for one in lines:
        assert one["change_index"] is None or one["change_index"] <= one["index"]


@pytest.mark.parametrize("detector", ["mmd", "centroid"])
def test_the_detectors_of_vectors_find_another_topic(detector: str) -> None:
    rng = np.random.default_rng(8)
    near, far = rng.standard_normal(32), 4 * rng.standard_normal(32)
    vectors = [(near if index < 600 else far) + rng.standard_normal(32) for index in range(1000)]
    (first, *_) = found(run([vector.tolist() for vector in vectors], "--detector", detector))
    assert 600 <= first["index"] < 800
    assert first["what"] == "topic"


def test_known_changes_give_delay_misses_and_false_alarms() -> None:
    quiet = np.random.default_rng(9).normal(3, 1, 400).tolist()
    result = run([*step(1), *quiet], "--changes", "600,900", "--summary")
    *detections, last = found(result)
    figures = last["summary"]["penstock"]
    assert [one["index"] for one in detections] == [figures["known_changes"][0]["detected"]]
    assert figures["known_changes"][0]["delay"] == detections[0]["index"] - 600 + 1 == figures["delay_median"]
    assert (figures["changes"], figures["detected"], figures["missed"]) == (2, 1, 1)
    assert (figures["false_alarms"], figures["false_alarms_per_10000"], figures["repeated"]) == (0, 0, 0)
    assert figures["values"] == 1300


def test_a_detection_where_nothing_changed_is_a_false_alarm(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    truth.write_text('{"index": 100, "segment": "a"}\n\n{"index": 700, "segment": "other"}\n')
    lines = [{"value": value, "segment": "a"} for value in step(1)]
    within = found(run(lines, "--truth", str(truth), "--within", "50", "--summary"))[-1]["summary"]["penstock"]
    assert (within["changes"], within["missed"], within["false_alarms"]) == (1, 1, 1)
    assert within["false_alarms_per_10000"] == pytest.approx(10_000 / 900, abs=0.001)
    never = found(run(lines, "--changes", "", "--summary"))[-1]["summary"]["penstock"]
    assert (never["changes"], never["false_alarms"]) == (0, 1)


def test_several_detectors_run_side_by_side() -> None:
    result = run(step(1), "--detector", "penstock", "--detector", "adwin:delta=0.01,clock=1", "--summary")
    lines = found(result)
    assert {one["detector"] for one in lines[:-1]} == {"penstock", "adwin"}
    assert set(lines[-1]["summary"]) == {"penstock", "adwin"}
    again = run(step(1), "--detector", "adwin", "--detector", "adwin:delta=0.5")
    assert {one["detector"] for one in found(again)} <= {"adwin", "adwin:delta=0.5"}


def test_the_allowance_governs_how_sure_it_must_be() -> None:
    thresholds = [found(run(step(1), "--false-alarms", allowed))[0]["threshold"] for allowed in ("0.01", "5")]
    assert thresholds[0] > thresholds[1] + 1, "fewer false alarms need more evidence"


def test_a_bad_line_ends_the_run_with_2_and_loses_nothing_before_it() -> None:
    values = step(1)
    whole = run(values)
    result = run([*values, "", "oops", 1.0])
    assert result.exit_code == 2
    assert result.stdout == whole.stdout != ""
    assert "Error: standard input, line 902 (index 900): is not JSON" in result.stderr


def test_a_value_of_another_kind_is_refused_with_its_index() -> None:
    result = run([1, 2, [1, 2]])
    assert result.exit_code == 2
    assert "index 2: a vector of signal 'value', which was a number so far" in result.stderr
    result = run([0, 1, 0.5], "--detector", "ddm")
    assert result.exit_code == 2
    assert "index 2: the value 0.5 is neither 0 nor 1, and ddm watches errors" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--detector", "adwn"], "there is no detector 'adwn'; there are penstock, adwin"),
        (["--detector", "adwin:delt=1"], "adwin has no parameter 'delt'; it has delta, clock"),
        (["--detector", "adwin:delta"], "'delta' is no parameter; write adwin:key=value"),
        (["--detector", "penstock:warmup=1"], "penstock has no parameter 'warmup'; it has .*scalar.warm_up"),
        (["--detector", "penstock:warm_up=much"], "warm_up=much"),
        (["--detector", "ks:window=1"], "ks: window is 1; at least 2 is needed"),
        (["--changes", "x"], "'x' is neither an index from 0"),
        (["--changes", "-5"], "'-5' is neither an index from 0"),
        (["--from", "yesterday"], "is no instant"),
    ],
)
def test_what_is_asked_wrongly_is_named(arguments: list[str], said: str) -> None:
    result = run([1.0], *arguments)
    assert result.exit_code == 2
    assert re.search(said, result.stderr), result.stderr


def test_a_period_is_cut_out_and_indices_stay() -> None:
    lines = [{"value": value, "timestamp": 1_767_600_000 + 60 * index} for index, value in enumerate(step(1))]
    (whole,) = found(run(lines))
    (part,) = found(run(lines, "--from", "2026-01-05T13:00:00Z"))
    assert part["index"] == pytest.approx(whole["index"], abs=10)
    first = next(index for index, line in enumerate(lines) if line["timestamp"] >= 1_767_618_000)
    assert part["evidence"]["reference"]["first_index"] == first == 300
    assert found(run(lines, "--to", "2026-01-05T15:00:00Z")) == []


def test_parameters_of_all_parts_can_be_set() -> None:
    with pytest.raises(UnknownParameter):
        factory("penstock:scalar.reference=1")
    name, make = factory("penstock:scalar.warm_up=60,seasonal=false")
    assert name == "penstock"
    running = Replay([("penstock", make)])
    events = [Event(index, None, "value", None, value) for index, value in enumerate(step(1))]
    detections = [one for event in chosen(events, Filter()) for one in running.observe(event)]
    assert len(detections) == 1


def test_detections_come_while_the_pipe_is_open_and_memory_does_not_grow() -> None:
    """A detection is read from the process before its input has ended; then 200,000 more lines go through it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}:{PROJECT}"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        process.stdin.write("".join(f"{value}\n" for value in step(1)).encode())
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert first["kind"] == "abrupt"
        rng = np.random.default_rng(1)
        for _ in range(10):
            process.stdin.write("".join(f"{value:.4f}\n" for value in rng.normal(3, 1, 10_000)).encode())
        process.stdin.close()
        *_, last = process.stdout.read().splitlines()
        memory = json.loads(last)
        assert memory["after"] - memory["before"] < 30_000, "kilobytes for 100,000 values"
        assert process.wait(60) == 0
    finally:
        guard.cancel()
        process.kill()


_CHILD = """
import json, resource, sys
from services.drift.lookback.command_replay import replay
import services.drift.lookback.replay_lines as lines
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
replay(["-", "--detector", "penstock:seasonal=false"], standalone_mode=False)
print(json.dumps({"before": before, "after": peak()}))
"""
