"""The detectors that a replay can run, by name: the service's own, and others to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from services.drift import verdicts
from services.drift.detection import categories, scalar, seasonal, topic
from services.drift.detection.coding import Scale
from services.drift.detection.features import fourier_features
from services.drift.detection.river_stage import RIVER_DETECTORS
from services.drift.detection.shift import Shift
from services.drift.lookback.replay_baselines import BASELINES, baseline
from services.drift.lookback.replay_finding import Detector, Finding, UnknownParameter
from services.drift.lookback.replay_lines import Value
from services.drift.signals import SIGNALS

__all__ = ["DEFAULT", "DETECTORS", "FALSE_ALARMS", "Penstock", "PenstockParameters", "factory"]

DEFAULT = "penstock"
DETECTORS = (DEFAULT, *BASELINES)
"""Names of all detectors."""

FALSE_ALARMS = 0.2
"""Expected false alarms in 10,000 values, where nothing else is said."""

_PER = 10_000
_DECLARED = {each.name: each for each in SIGNALS}


class PenstockParameters(msgspec.Struct, frozen=True):
    """How the service's detectors are set."""

    scalar: scalar.ScalarParameters = scalar.ScalarParameters()
    topic: topic.TopicParameters = topic.TopicParameters()
    categories: categories.CategoryParameters = categories.CategoryParameters()
    seasonal: bool = True
    """Whether numbers with an instant are watched as what they differ from the usual of their hour of the week."""
    river: tuple[str, ...] | None = None
    """Detectors of River's that raise candidates of numbers beside the scan; ``None`` for those of the signal."""


class Penstock:
    """The service's own detectors: for numbers and rates, for vectors, for categories, by what comes.

    Args:
        parameters: how they are set.
        allowance: expected false alarms that each value may cause.
        signal: name of the signal; one that is declared is watched as declared (an amount by its logarithm), any other
            as it is.
    """

    name = DEFAULT

    def __init__(self, parameters: PenstockParameters, allowance: float, signal: str) -> None:
        self._parameters = parameters
        self._allowance = allowance
        self._defined = _DECLARED.get(signal)
        # A number of which nothing is known is a score: that a reference holds two values only is seen by the detector.
        scale = "score" if self._defined is None else self._defined.scale
        self._scale: Scale = "amount" if scale == "amount" else "rate" if scale == "rate" else "score"
        declared = () if self._defined is None else self._defined.river
        self._river = declared if parameters.river is None else parameters.river
        self._numbers = scalar.ScalarState()
        self._profile: seasonal.Profile | None = None
        self._binary = True
        self._topics = topic.TopicState()
        self._categories = categories.CategoryState()
        self._dimensions = 0

    def update(self, value: Value, offset: int, at: datetime | None = None) -> Finding | None:
        """Take one value. Vectors of another length are another embedder's: the reference then starts anew."""
        shift: Shift | None
        if isinstance(value, float):
            seen = value if self._defined is None else self._defined.transform(value)
            if seen is None:
                return None
            if at is not None and self._parameters.seasonal:
                seen = self._deseasoned(seen, at)
            self._numbers, shift = scalar.observe(
                self._numbers,
                seen,
                offset,
                self._parameters.scalar,
                self._allowance,
                scale=self._scale,
                river=self._river,
            )
        elif isinstance(value, str):
            self._categories, shift = categories.observe(
                self._categories, value, offset, self._parameters.categories, self._allowance
            )
        else:
            if len(value) != self._dimensions:
                self._topics, self._dimensions = topic.TopicState(), len(value)
            self._topics, shift = topic.observe(
                self._topics, fourier_features(value[None])[0], offset, self._parameters.topic, self._allowance
            )
        if shift is None:
            return None
        if self._defined is None:
            return _finding(shift, shift.before, shift.after)
        # In the signal's own units: an amount is watched by its logarithm.
        described = verdicts.described(self._defined.name, shift)
        return _finding(shift, described.before, described.after)

    def _deseasoned(self, value: float, at: datetime) -> float:
        """Take the hour's usual deviation off a number. One that was only ever 0 or 1 is a rate, and stays one."""
        if self._binary and value not in (0, 1):
            self._binary, self._profile = False, None
        scale: Scale = "rate" if self._binary else self._scale
        self._profile, seen = seasonal.adjusted(self._profile, value, at, scale=scale)
        return seen


def _finding(shift: Shift, before: dict[str, float], after: dict[str, float]) -> Finding:
    return Finding(
        kind=shift.pattern,
        what=shift.what,
        change=shift.test_first_offset,
        reference_first=shift.reference_first_offset,
        before_count=shift.before_count,
        after_count=shift.after_count,
        size=shift.size,
        statistic=shift.statistic,
        threshold=shift.threshold,
        before=before,
        after=after,
        returned=shift.returned,
    )


def factory(spec: str, false_alarms: float = FALSE_ALARMS) -> tuple[str, Callable[[str], Detector]]:
    """Read ``NAME[:key=value,...]``.

    Args:
        spec: name of a detector, with parameters of it that are not to be the default.
        false_alarms: expected false alarms in 10,000 values, for the detectors that keep to one.

    Returns:
        The name, and what makes a detector for a stream by the name of its signal.

    Raises:
        UnknownParameter: there is no such detector, or no such parameter, or not such a value of it.
    """
    name, _, rest = spec.partition(":")
    name = name.strip().lower().replace("_", "-")
    if name not in DETECTORS:
        raise UnknownParameter(f"there is no detector {name!r}; there are {', '.join(DETECTORS)}")
    given: dict[str, float | str] = {}
    for part in filter(None, (each.strip() for each in rest.split(","))):
        key, separator, value = part.partition("=")
        if not separator or not key or not value:
            raise UnknownParameter(f"{part!r} is no parameter; write {name}:key=value,key=value")
        given[key.strip().replace("-", "_")] = _parameter(value.strip())
    if name == DEFAULT:
        parameters = _penstock(given)
        return name, lambda signal: Penstock(parameters, false_alarms / _PER, signal)
    make = baseline(name, given)
    return name, lambda signal: make()


def _parameter(text: str) -> float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _river(text: str) -> tuple[str, ...]:
    """Read the names of River's detectors, with a ``+`` between them; ``none`` for the scan alone."""
    names = () if text.lower() == "none" else tuple(dict.fromkeys(text.lower().replace("_", "-").split("+")))
    for name in names:
        if name not in RIVER_DETECTORS:
            raise UnknownParameter(f"river={text}: there is no {name!r}; write none, or {'+'.join(RIVER_DETECTORS)}")
    return names


def _penstock(given: Mapping[str, float | str]) -> PenstockParameters:
    """Return parameters; ``warm_up`` is that of all that have one, ``topic.reference`` that of vectors only."""
    parameters = PenstockParameters()
    parts = {name: getattr(parameters, name) for name in ("scalar", "topic", "categories")}
    for key, value in given.items():
        if key == "seasonal" and isinstance(value, bool):
            parameters = msgspec.structs.replace(parameters, seasonal=value)
            continue
        if key == "river":
            parameters = msgspec.structs.replace(parameters, river=_river(str(value)))
            continue
        of, _, field = key.rpartition(".")
        chosen = [name for name, part in parts.items() if of in ("", name) and field in part.__struct_fields__]
        if not chosen:
            known = ", ".join(f"{name}.{field}" for name, part in parts.items() for field in part.__struct_fields__)
            raise UnknownParameter(
                f"{DEFAULT} has no parameter {key!r}; it has seasonal (true or false), river, {known}"
            )
        for name in chosen:
            changed = msgspec.to_builtins(parts[name]) | {field: value}
            try:
                parts[name] = msgspec.convert(changed, type(parts[name]))
            except msgspec.ValidationError as error:
                raise UnknownParameter(f"{key}={value}: {error}") from error
    return msgspec.structs.replace(parameters, **parts)
