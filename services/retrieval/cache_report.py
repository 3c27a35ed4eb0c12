"""How often an earlier answer would have been another one, by cosine, from the metrics of the service. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["RouteFigures", "Threshold", "figures_of", "wilson_upper"]

_PREFIX = "penstock_semantic_cache_"
_Z = 1.959963984540054
"""Normal score of a two-sided interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a threshold would have let through: pairs of questions above ``similarity`` whose answers were compared.

    Attributes:
        compared: such pairs; different: those whose answers were not the same.
        at_most: upper end of the 95 % interval of their share, 0 to 1; None where nothing was compared.
    """

    similarity: float
    compared: int
    different: int
    at_most: float | None


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """Figures of one route since the processes started.

    Attributes:
        lookups, hits: by mode, shadow or on.
        false_hits: hits in shadow whose own answer then said something else.
        thresholds: from the lowest to the highest; empty where nothing was compared.
    """

    route: str
    lookups: dict[str, int]
    hits: dict[str, int]
    false_hits: int
    thresholds: tuple[Threshold, ...]


def figures_of(expositions: Iterable[str]) -> list[RouteFigures]:
    """Return the figures of every route in the metrics of one or more processes, in Prometheus' text format, added up."""
    counts: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    above: defaultdict[tuple[str, str, float], float] = defaultdict(float)
    for exposition in expositions:
        for family in text_string_to_metric_families(exposition):
            if not family.name.startswith(_PREFIX):
                continue
            for sample in family.samples:
                name, labels = sample.name.removeprefix(_PREFIX), sample.labels
                if name in ("lookups_total", "hits_total", "false_hits_total"):
                    counts[labels["route"], name.removesuffix("_total"), labels["mode"]] += sample.value
                elif name == "similarity_bucket":
                    above[labels["route"], labels["verdict"], float(labels["le"])] += sample.value
    return [_figures(route, counts, above) for route in sorted({key[0] for key in counts})]


def _figures(
    route: str, counts: dict[tuple[str, str, str], float], above: dict[tuple[str, str, float], float]
) -> RouteFigures:
    def by_mode(what: str) -> dict[str, int]:
        return {mode: int(value) for (of, name, mode), value in sorted(counts.items()) if (of, name) == (route, what)}

    def beyond(verdict: str, bound: float) -> int:
        return int(above.get((route, verdict, math.inf), 0.0) - above.get((route, verdict, bound), 0.0))

    bounds = sorted({bound for of, _, bound in above if of == route and bound < 1.0})
    thresholds = []
    for bound in bounds:
        different = beyond("different", bound)
        compared = different + beyond("same", bound)
        thresholds.append(Threshold(bound, compared, different, wilson_upper(different, compared)))
    return RouteFigures(
        route, by_mode("lookups"), by_mode("hits"), by_mode("false_hits").get("shadow", 0), tuple(thresholds)
    )


def wilson_upper(part: int, whole: int) -> float | None:
    """Return the upper end of the 95 % score interval of a share (Wilson 1927); None of nothing."""
    if whole == 0:
        return None
    share, z2 = part / whole, _Z * _Z
    middle = share + z2 / (2 * whole)
    width = _Z * math.sqrt(share * (1 - share) / whole + z2 / (4 * whole * whole))
    return min(1.0, (middle + width) / (1 + z2 / whole))
