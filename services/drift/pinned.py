"""Whether a pinned reference hangs together, pure: it comes from a topic that people write to.

A state whose parts do not fit each other would fail at every event of its segment, and a worker that puts so many events
aside stops. So what is wrong with a reference is found before it takes the place of a segment's own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from services.drift.detection.category_windows import HASHED, NAMES
from services.drift.detection.features import FEATURES
from services.drift.detection.reference import geometry
from services.drift.detection.scalar_state import STRIDE, WINDOW, ScalarState
from services.drift.detection.seasonal_profile import Profile, Season
from services.drift.detectors import MOST_SIGNALS, Detectors, VectorState

__all__ = ["flaw"]

_FLOAT, _ROW = 4, 16
_CODES = 1e9
_DAY, _WEEK = 24, 168


def flaw(detectors: Detectors) -> str | None:
    """Return what is wrong with a pinned reference; ``None`` where nothing is.

    Args:
        detectors: states without candidates and past regimes, as
            :func:`services.drift.detectors.handed_down` leaves them.
    """
    if len(detectors) > MOST_SIGNALS:
        return f"it has {len(detectors)} signals; a segment has {MOST_SIGNALS} at most"
    for name, number in detectors.numbers.items():
        if not _is_number(number):
            return f"the state of {name} does not hang together"
    for name, vector in detectors.vectors.items():
        if not _is_vector(vector):
            return f"the state of {name} does not hang together"
    for name, mixture in detectors.categories.items():
        windows = mixture.windows
        if windows is None or len(windows.names) > NAMES or len(windows.total) != 8 * (len(windows.names) + HASHED):
            return f"the state of {name} does not hang together"
        totals, scatter = windows.totals, mixture.scatter
        figures = (scatter.deviance, scatter.expected, scatter.repeats, scatter.events, scatter.chances)
        if not _sound(totals) or totals.min() < 0 or windows.weight < 0 or not _sound(figures) or min(figures) < 0:
            return f"the counts of {name} are no counts"
    for name, profile in detectors.profiles.items():
        if not _is_profile(profile):
            return f"the hours of {name} do not hang together"
    return None


def _is_number(state: ScalarState) -> bool:
    coding, moments = state.coding, state.moments
    if coding is None or not _sound((coding.location, coding.scale, coding.g)) or coding.scale <= 0:
        return False
    held, rest = divmod(len(state.window), _FLOAT)
    if rest or not 0 < held <= WINDOW or not 0 < len(state.marks) <= WINDOW // STRIDE + 1 or state.seen < held:
        return False
    blocks, rest = divmod(len(moments.blocks), _ROW)
    count = moments.levels.count
    if rest or count < 0 or count != moments.spreads.count or len(moments.offsets) != (blocks + 1 if count else 0):
        return False
    series = [each for of in (moments.levels, moments.spreads) for each in (of.total, of.squares, of.products, of.last,
              of.batch, of.batch_squares)]  # fmt: skip
    return (
        _sound(np.frombuffer(state.window, np.float32), _CODES)
        and _sound(np.frombuffer(moments.blocks, np.float32))
        and _sound((moments.total, moments.squares, *moments.begun, *series, *state.bars))
        and _sound(state.inflation)
        and min(state.inflation) >= 1
    )


def _is_vector(vector: VectorState) -> bool:
    topic = vector.topic
    known, held = topic.reference, len(topic.offsets) // 8
    sizes = (len(known.mean), len(known.scatter), len(topic.recent), len(topic.offsets))
    kept = len(known.places) // 4
    if (
        vector.dimensions <= 0
        or known.absorbed <= 0
        or not (_sound((known.weight,)) and known.weight > 1)
        or sizes != (4 * FEATURES, 2 * FEATURES * (FEATURES + 1), FEATURES * held, 8 * held)
        or kept < 2
        or (len(known.places), len(known.sample)) != (4 * kept, FEATURES * kept)
        or any(len(each.total) != 2 * FEATURES or not 0 <= each.absorbed <= each.count > 0 for each in topic.blocks)
        or not _sound((*topic.likeness, topic.burst.evidence, topic.burst.peak, topic.burst.bound))
    ):
        return False
    if not _sound(np.frombuffer(known.mean, np.float32), 1.0) or not _sound(np.frombuffer(known.scatter, np.float32)):
        return False
    try:
        found = geometry(known)
    except np.linalg.LinAlgError:
        return False
    return _sound(found.inverse.ravel()) and _sound(found.novelty) and _sound((found.energy, found.overlap))


def _is_profile(profile: Profile) -> bool:
    figures = (profile.origin, profile.level, profile.centre, profile.noise, profile.surprise, profile.last or 0.0)
    return (
        _sound(figures)
        and profile.noise >= 0
        and all(
            season is None or _is_season(season, hours)
            for season, hours in ((profile.day, _DAY), (profile.week, _WEEK))
        )
        and (profile.visit is None or profile.visit.count > 0)
    )


def _is_season(season: Season, hours: int) -> bool:
    if (len(season.deviations), len(season.weights)) != (4 * hours, 2 * hours):
        return False
    weights = np.frombuffer(season.weights, "<f2").astype(np.float64)
    return (
        _sound(np.frombuffer(season.deviations, "<f4"))
        and _sound(weights)
        and weights.min() >= 0
        and _sound((season.covariance, season.covered, season.slope_top, season.slope_base))
    )


def _sound(figures: Iterable[float], most: float = 1e300) -> bool:
    """Tell whether figures are finite and within bounds."""
    return all(abs(each) <= most for each in np.asarray(list(figures)).tolist())
