"""River's detectors over the spending of five minutes, for the comparison in bench_cost_alerts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from river import anomaly, preprocessing, time_series

# River's classes are partly untyped.
_anomaly: Any = anomaly
_time_series: Any = time_series


class Alone(NamedTuple):
    """One of River's detectors over the spending of five minutes: made anew, and whether a value is a rise."""

    make: Callable[[], Any]
    risen: Callable[[Any, int, float], bool]


def _gaussian(detector: Any, minute: int, value: float) -> bool:
    risen = detector.score_one(None, value) > 0.9999 and value > detector.gaussian.mu
    detector.learn_one(None, value)
    return bool(risen)


def _by_slot(detectors: dict[int, Any], minute: int, value: float) -> bool:
    return _gaussian(detectors.setdefault(minute // 30 % 48, _anomaly.GaussianScorer(grace_period=36)), minute, value)


def _quantile(detector: Any, minute: int, value: float) -> bool:
    risen = detector.classify(detector.score_one(None, value)) and value > detector.anomaly_detector.gaussian.mu
    detector.learn_one(None, value)
    return bool(risen)


def _predictive(detector: Any, minute: int, value: float) -> bool:
    if detector.iter < 2016:
        detector.learn_one(None, value)
        return False
    risen = value > detector.predictive_model.forecast(1)[0] and detector.score_one({}, value) >= 1
    detector.learn_one(None, value)
    return bool(risen)


def _half_space(detector: Any, minute: int, value: float) -> bool:
    angle = minute / 1440 * 2 * math.pi
    features = {"spent": value, "cos": math.cos(angle), "sin": math.sin(angle)}
    risen = detector.score_one(features) > 0.98
    detector.learn_one(features)
    return bool(risen)


ALONE = {
    "GaussianScorer": Alone(lambda: _anomaly.GaussianScorer(grace_period=288), _gaussian),
    "GaussianScorer by half hour": Alone(dict, _by_slot),
    "QuantileFilter, GaussianScorer": Alone(
        lambda: _anomaly.QuantileFilter(_anomaly.GaussianScorer(grace_period=288), q=0.9995), _quantile
    ),
    "Predictive, HoltWinters (week)": Alone(
        lambda: _anomaly.PredictiveAnomalyDetection(
            _time_series.HoltWinters(alpha=0.1, beta=0.001, gamma=0.3, seasonality=2016), n_std=5.0
        ),
        _predictive,
    ),
    "Predictive, SNARIMAX (day)": Alone(
        lambda: _anomaly.PredictiveAnomalyDetection(_time_series.SNARIMAX(p=6, d=0, q=0, m=288, sp=2), n_std=5.0),
        _predictive,
    ),
    "HalfSpaceTrees": Alone(
        lambda: preprocessing.MinMaxScaler() | _anomaly.HalfSpaceTrees(n_trees=15, window_size=288, seed=1), _half_space
    ),
}
