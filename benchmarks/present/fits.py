"""Power laws fitted to measurements: y = c * n^exponent, by least squares on log-log."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

TAIL_SPAN = 8
MIN_POINTS = 3
TAIL = (
    f"fitted over the tail: the lengths within {TAIL_SPAN}x of the longest that was measured, "
    f"at least {MIN_POINTS} of them; intervals are 95 %"
)


@dataclass(frozen=True)
class PowerLaw:
    exponent: float
    ci_low: float
    ci_high: float
    log_scale: float
    points: int

    def __call__(self, n: float) -> float:
        return math.exp(self.log_scale + self.exponent * math.log(n))


def fit(lengths: Iterable[float], values: Iterable[float]) -> PowerLaw | None:
    """Least squares on the logarithms with the t interval of the slope; None below 3 points."""
    x, y = np.log(np.asarray(lengths, float)), np.log(np.asarray(values, float))
    if len(x) < MIN_POINTS:
        return None
    line = stats.linregress(x, y)
    # scipy gives no error for a perfectly flat line; it is zero.
    half = stats.t.ppf(0.975, len(x) - 2) * np.nan_to_num(line.stderr)
    return PowerLaw(line.slope, line.slope - half, line.slope + half, line.intercept, len(x))


def tail(lengths: list[int]) -> list[int]:
    """The lengths that a fit uses: constant overheads hide the exponent of the short ones."""
    ordered = sorted(lengths)
    start = sum(n < ordered[-1] / TAIL_SPAN for n in ordered) if ordered else 0
    return ordered[min(start, max(0, len(ordered) - MIN_POINTS)) :]


def fit_tail(values: Mapping[int, float]) -> dict:
    """The power law over the tail of {length: value}; `exponent` is None if that is too short."""
    lengths = tail(list(values))
    law = fit(lengths, [values[n] for n in lengths])
    return {
        "exponent": law and law.exponent,
        "ci_low": law and law.ci_low,
        "ci_high": law and law.ci_high,
        "points": len(lengths),
        "tail_from": lengths[0] if lengths else None,
        "tail_to": lengths[-1] if lengths else None,
        "scale": law and math.exp(law.log_scale),
    }
