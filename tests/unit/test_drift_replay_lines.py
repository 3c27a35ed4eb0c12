"""Streams as JSON lines: what a line may be, and what is said of one that cannot be used."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift.lookback.replay_lines import LONGEST_LINE, BadLine, Event, read_events

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def read(text: str, *, field: str | None = None, timed: bool = False) -> list[Event]:
    return list(read_events(io.BytesIO(text.encode()), "stream.jsonl", field=field, timed=timed))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("3", 3.0),
        ("-2.5e-5", -2.5e-5),
        ("true", 1.0),
        ("[7]", 7.0),
        ('{"value": 0.25}', 0.25),
        ('{"value": false}', 0.0),
        ('{"number": 1}', 1.0),
        ('{"x": 12}', 12.0),
        ('{"latency_ms": 830.5, "segment": "a", "timestamp": 5}', 830.5),
        ('{"label": 1, "score": 0.5}', 0.5),
        ('{"index": 9, "t": 4, "score": 0.5}', 0.5),
        ('{"value": "refund"}', "refund"),
        ('{"category": "refund", "weight": 2}', "refund"),
        ('{"label": "refund"}', "refund"),
        ('{"label": 404}', "404"),
    ],
)
def test_a_line_is_a_number_or_an_object_with_one(line: str, value: float | str) -> None:
    (event,) = read(line)
    assert (event.index, event.signal, event.value, type(event.value)) == (0, "value", value, type(value))


@pytest.mark.parametrize("name", ["value", "vector", "embedding", "x", "prompt_embedding"])
def test_a_vector_stands_bare_or_in_an_object(name: str) -> None:
    bare, named = read("[0.5, -1, 2]\n" + json.dumps({name: [0.5, -1, 2], "segment": "a"}))
    for event in (bare, named):
        assert isinstance(event.value, np.ndarray)
        assert event.value.dtype == np.float32
        assert event.value.tolist() == [0.5, -1.0, 2.0]
    assert named.segment == "a"


def test_lines_count_from_0_and_blank_ones_do_not_count() -> None:
    events = read('\ufeff1\n\n   \n2\r\n{"value": null}\n3')
    assert [(event.index, event.value) for event in events] == [(0, 1.0), (1, 2.0), (3, 3.0)]


@pytest.mark.parametrize(
    "written",
    [
        '"2026-01-05T09:00:00Z"', '"2026-01-05T10:00:00+01:00"', '"2026-01-05 09:00:00"', "1767603600", "1767603600.0",
        "1767603600000", "1767603600000000", "1767603600000000000",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["timestamp", "ts", "time"])
def test_an_instant_is_iso_or_counts_from_the_epoch(name: str, written: str) -> None:
    (event,) = read(f'{{"value": 1, "{name}": {written}}}')
    assert event.at == AT


def test_a_time_of_its_own_is_left_alone_unless_a_period_is_asked_for() -> None:
    assert read('{"value": 1, "time": "noon"}')[0].at is None
    with pytest.raises(BadLine, match=r"line 1 \(index 0\): field 'time' is no instant: 'noon'"):
        read('{"value": 1, "time": "noon"}', timed=True)
    with pytest.raises(BadLine, match="has no timestamp"):
        read("1", timed=True)


def test_a_record_of_signals_gives_every_signal_of_it() -> None:
    line = {
        "segment": "t|m|v|r",
        "values": {"a": 1, "b": 2.5},
        "categories": {"c": "x"},
        "vectors": {"d": "<1536 bytes>"},
    }
    events = read(json.dumps(line) + '\n{"signal": "e", "value": 4}')
    assert [(event.index, event.signal, event.value) for event in events] == [
        (0, "a", 1.0), (0, "b", 2.5), (0, "c", "x"), (1, "e", 4.0),
    ]  # fmt: skip


def test_a_segment_may_be_an_object_or_a_number() -> None:
    events = read('{"value": 1, "segment": {"team": "a", "route": "r"}}\n{"value": 1, "segment": 7}')
    assert [event.segment for event in events] == ["a|*|*|r", "7"]


def test_the_field_can_be_named() -> None:
    assert read('{"a": 1, "b": 2}', field="b")[0].value == 2.0
    with pytest.raises(BadLine, match="has no field 'c'; it has 'a', 'b'"):
        read('{"a": 1, "b": 2}', field="c")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "is not JSON"),
        ('{"value": 1', "is not JSON"),
        ('"text"', "is a text"),
        ("null", "is null"),
        ("{}", "only nothing"),
        ('{"segment": "a"}', "has no number and no vector, only 'segment'"),
        ('{"a": 1, "b": 2}', "has several numbers .*--field"),
        ('{"value": {"deep": 1}}', "field 'value' is an object"),
        ('{"value": NaN}', "only finite numbers"),
        ('{"value": 1e400}', "finite|not JSON"),
        ('{"value": ["a"]}', "something that is no number"),
        ("[]", "an empty list"),
        ("[0, 0, 0]", "all zeros"),
        ("[1, 1e39]", "not finite"),
        ('{"value": 1, "segment": [1]}', "'segment' is a list"),
        ("[" * 5000, "nested too deeply|not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_reason(line: str, said: str) -> None:
    found: list[Event] = []
    with pytest.raises(BadLine, match=rf"^stream\.jsonl, line 3 \(index 1\): .*({said})"):
        found.extend(read_events(io.BytesIO(f"1\n\n{line}\n2\n".encode()), "stream.jsonl"))


def test_what_comes_before_a_bad_line_is_not_lost() -> None:
    events = read_events(io.BytesIO(b"1\n2\nnot json\n"), "s")
    assert [next(events).value, next(events).value] == [1.0, 2.0]
    with pytest.raises(BadLine):
        next(events)


def test_a_line_without_end_does_not_fill_memory() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            buffer[:] = b"1" * len(buffer)
            self.given += len(buffer)
            return len(buffer)

    raw = Endless()
    with pytest.raises(BadLine, match="longer than 16 MiB"):
        next(read_events(io.BufferedReader(raw), "s"))
    assert raw.given < 2 * LONGEST_LINE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["value", "x", "label", "values", "segment", "time", "a"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
def test_any_json_is_read_or_refused(rows: list[object]) -> None:
    text = "\n".join(json.dumps(row) for row in rows)
    try:
        events = read(text)
    except BadLine as error:
        assert "stream.jsonl, line" in str(error)
        return
    for event in events:
        assert isinstance(event.value, str) or np.all(np.isfinite(event.value))
