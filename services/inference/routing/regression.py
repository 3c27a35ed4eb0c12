"""What a call takes, as a sum of a part that is always there and parts that grow with its tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

__all__ = ["non_negative_fit"]

_RIDGE = 1e-3
"""Share of its own moment that is added to each feature's, so that features which always went together share the effect."""


def non_negative_fit(moments: Sequence[Sequence[float]], products: Sequence[float]) -> list[float]:
    """Return the coefficients b >= 0 that minimise the squared error of y = x.b, ridge included.

    Every set of features that may be above zero is tried: with three there are seven.

    Args:
        moments: sums of w x_i x_j, symmetric.
        products: sums of w x_i y.
    """
    size = len(products)
    damped = [[moments[i][j] * (1 + _RIDGE * (i == j)) for j in range(size)] for i in range(size)]
    best, best_gain = [0.0] * size, 0.0
    for count in range(1, size + 1):
        for chosen in combinations(range(size), count):
            solved = _solved([[damped[i][j] for j in chosen] for i in chosen], [products[i] for i in chosen])
            if solved is None or min(solved) < 0:
                continue
            # Of a minimum the error is that of b = 0, less this.
            gain = sum(value * products[i] for value, i in zip(solved, chosen, strict=True))
            if gain > best_gain:
                best_gain = gain
                best = [0.0] * size
                for value, i in zip(solved, chosen, strict=True):
                    best[i] = value
    return best


def _solved(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Return the solution of a positive definite system by elimination; None where it has none."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(size):
        if rows[i][i] <= 1e-12 * matrix[i][i] or rows[i][i] <= 0:
            return None
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            rows[j] = [b - factor * a for a, b in zip(rows[i], rows[j], strict=True)]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * solution[j] for j in range(i + 1, size))
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution
