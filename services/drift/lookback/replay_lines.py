"""Streams as JSON lines: what a line may be, and what is wrong with one that is not.

A line is a number, a list of numbers (a vector), or an object:

- the value under ``value``, ``vector``, ``embedding``, ``number`` or ``x``, or else in the only field that holds a
  number or a list of numbers; a category under ``category``, or under ``label`` where there is no number, or as a text
  under ``value``. Or many at once, by signal name, in ``values``, ``categories`` and ``vectors``, as ``penstock tail
  signals`` prints them. A value that is ``null`` counts as a line and is not watched.
- optional: ``segment``, ``signal``, and ``timestamp``, ``ts``, ``time`` or ``occurred_at`` (ISO 8601, or seconds,
  milliseconds, microseconds or nanoseconds since the epoch).

Lines count from 0 over the whole file; blank ones are skipped and do not count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["BadLine", "Event", "Place", "Value", "read_events"]

Vector = NDArray[np.float32]
Value = float | str | Vector

LONGEST_LINE = 16 * 1024 * 1024
"""Bytes; memory stays bounded whatever comes through a pipe."""

_VALUES = ("value", "vector", "embedding", "number", "x")
_CATEGORIES = ("category", "label")
_TIMES = ("timestamp", "ts", "time", "occurred_at")
_NAMES = ("signal", "segment")
# Fields of other meaning: never taken for the value where none is named.
_OTHERS = frozenset({*_CATEGORIES, *_TIMES, *_NAMES, "index", "id", "offset", "partition", "seed", "step", "t"})
_SEGMENT_PARTS = ("team", "model", "prompt_version", "route")
_BOM = b"\xef\xbb\xbf"
# From this size on a number of the epoch is in the next smaller unit: 1e11 seconds are the year 5138.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))


class BadLine(Exception):
    """A line that cannot be used; the message names it and says why and what to do."""


class Place(NamedTuple):
    """Where an event stands in the log."""

    topic: str
    partition: int
    offset: int


class Event(msgspec.Struct, frozen=True):
    """One value of one signal.

    Attributes:
        index: of its line, from 0 over the whole file; of its message, for the log.
        segment: the segment, where one is given.
        signal: name of the signal; ``value`` where none is given.
        at: when it occurred, UTC, where that is given.
        value: a number, a category or a vector of shape (dimensions,).
        place: where it was read, for the log.
    """

    index: int
    segment: str | None
    signal: str
    at: datetime | None
    value: Value
    place: Place | None = None


def read_events(file: BinaryIO, source: str, *, field: str | None = None, timed: bool = False) -> Iterator[Event]:
    """Yield the values of a file as they are read: nothing is gathered, so a pipe may never end.

    Args:
        file: JSON lines, UTF-8.
        source: its name, for errors.
        field: field that holds the value; by default it is found as the module says.
        timed: whether every line must have a timestamp.

    Raises:
        BadLine: a line cannot be used. What came before it has been yielded.
    """
    index, number = 0, 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        line = raw.strip()
        if not line:
            continue
        try:
            if len(raw) > LONGEST_LINE:
                raise BadLine(f"is longer than {LONGEST_LINE >> 20} MiB; write one event a line")
            yield from _events(index, _decoded(line), field, timed)
        except BadLine as error:
            raise BadLine(f"{source}, line {number} (index {index}): {error}") from None
        index += 1


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except RecursionError:
        raise BadLine("is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # NaN and Infinity are no JSON, but Python writes them: the reason is then said where the value is read.
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            shown = line[:60].decode("utf-8", "backslashreplace")
            raise BadLine(f"is not JSON ({error}): {shown!r}; write a number, a list or an object") from None


def _events(index: int, data: Any, field: str | None, timed: bool) -> Iterator[Event]:
    if not isinstance(data, dict):
        if timed:
            raise BadLine('has no timestamp, which a period needs; write {"value": ..., "timestamp": ...}')
        if isinstance(data, str) or data is None:
            raise BadLine(f"is {_shape(data)}; write a number, a list of numbers or an object")
        yield Event(index, None, "value", None, _value(data, "the line"))
        return
    segment, at = _segment(data.get("segment")), _time(data, timed)
    many = field is None and _many(data)
    if many:
        for name, value in many:
            yield Event(index, segment, name, at, _value(value, f"signal {name!r}"))
        return
    name, value = _only(data, field)
    signal = data.get("signal")
    if value is not None:
        category = name in _CATEGORIES
        yield Event(
            index, segment, signal if isinstance(signal, str) and signal else "value", at,
            str(value) if category else _value(value, f"field {name!r}"),
        )  # fmt: skip


def _many(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return signals by name, as a record of ``signals`` has them; the vectors of such a print are cut and left out."""
    found: list[tuple[str, Any]] = []
    for field in ("values", "categories", "vectors"):
        by_name = data.get(field)
        if isinstance(by_name, dict):
            found += [(name, value) for name, value in by_name.items() if field != "vectors" or isinstance(value, list)]
    return found


def _only(data: Mapping[str, Any], field: str | None) -> tuple[str, Any]:
    """Return the field that holds the value, and what it holds."""
    if field is not None:
        if field not in data:
            raise BadLine(f"has no field {field!r}; it has {_listed(data)}")
        return field, data[field]
    for name in _VALUES:
        if name in data:
            return name, data[name]
    if isinstance(data.get("category"), str):
        return "category", data["category"]
    possible = [
        name for name, value in data.items() if name not in _OTHERS and (_is_number(value) or _is_numbers(value))
    ]
    if len(possible) == 1:
        return possible[0], data[possible[0]]
    # A label may stand beside a number, which then counts.
    category = next((name for name in _CATEGORIES if name in data), None)
    if category is not None and not possible:
        return category, data[category]
    if possible:
        raise BadLine(f"has several numbers ({_listed(possible)}): name the one that counts with --field")
    raise BadLine(f"has no number and no vector, only {_listed(data)}; put it under 'value' or name it with --field")


def _value(value: Any, what: str) -> Value:
    if isinstance(value, bool) or _is_number(value):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise BadLine(f"{what} is {value}; only finite numbers can be watched")
        return number
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if not value:
            raise BadLine(f"{what} is an empty list; a vector has numbers")
        if not _is_numbers(value):
            raise BadLine(f"{what} is a list with something that is no number; a vector has numbers only")
        if len(value) == 1:
            return _value(value[0], what)
        with np.errstate(over="ignore"):
            vector = np.asarray(value, np.float64).astype(np.float32)
        if not np.all(np.isfinite(vector)):
            raise BadLine(f"{what} has a number that is not finite; only finite numbers can be watched")
        if not vector.any():
            raise BadLine(f"{what} is all zeros, which has no direction; check what embedded it")
        return vector
    raise BadLine(f"{what} is {_shape(value)}; a number, a list of numbers or a text is needed")


def _segment(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "|".join(str(value.get(part, "*")) for part in _SEGMENT_PARTS)
    if _is_number(value):
        return str(value)
    raise BadLine(f"field 'segment' is {_shape(value)}; a text is needed")


def _time(data: Mapping[str, Any], timed: bool) -> datetime | None:
    name = next((name for name in _TIMES if data.get(name) is not None), None)
    if name is None:
        if timed:
            raise BadLine(f"has no timestamp, which a period needs; put one under {_TIMES[0]!r}")
        return None
    value = data[name]
    try:
        if _is_number(value):
            unit = next(unit for least, unit in _UNITS if abs(value) >= least)
            return datetime.fromtimestamp(value / unit, UTC)
        instant = datetime.fromisoformat(value)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        if timed:
            raise BadLine(f"field {name!r} is no instant: {value!r}; write 2026-01-05T09:00:00Z or seconds") from None
        # Nothing depends on it then, and a stream may well count its own time.
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, int | float) for each in value)


def _shape(value: Any) -> str:
    shapes = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return shapes.get(type(value), "a number")


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
