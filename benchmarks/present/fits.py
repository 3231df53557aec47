"""Power laws fitted to measurements: y = c * n^exponent, by least squares on log-log."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..harness.point import CURVE

TAIL_SPAN = 8
MIN_POINTS = 3
TAIL = (
    f"fitted over the tail: the lengths within {TAIL_SPAN}x of the longest that was measured, "
    f"at least {MIN_POINTS} of them; intervals are 95 %"
)
METRICS = {"time": "time_ms", "memory": "peak_memory_bytes"}


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
    # scipy leaves the error of a perfectly flat line undefined; it is zero.
    half = stats.t.ppf(0.975, len(x) - 2) * np.nan_to_num(line.stderr)
    return PowerLaw(line.slope, line.slope - half, line.slope + half, line.intercept, len(x))


def tail(lengths: list[int]) -> list[int]:
    """The lengths a fit looks at: constant overheads hide the exponent of the short ones."""
    ordered = sorted(lengths)
    start = sum(n < ordered[-1] / TAIL_SPAN for n in ordered) if ordered else 0
    return ordered[min(start, max(0, len(ordered) - MIN_POINTS)) :]


def fit_rows(rows: list[dict]) -> list[dict]:
    """One fit for each curve and metric; a curve too short to fit has exponent None."""
    curves: dict[tuple, dict[int, dict]] = {}
    for row in rows:
        if row["status"] == "ok":
            curves.setdefault(tuple(row[c] for c in CURVE), {})[row["seq_len"]] = row
    fitted = []
    for curve, by_length in sorted(curves.items()):
        for metric, column in METRICS.items():
            usable = [n for n, row in by_length.items() if (row[column] or 0) > 0]
            lengths = tail(usable)
            law = fit(lengths, [by_length[n][column] for n in lengths])
            fitted.append(
                {
                    **dict(zip(CURVE, curve, strict=True)),
                    "metric": metric,
                    "exponent": law and law.exponent,
                    "ci_low": law and law.ci_low,
                    "ci_high": law and law.ci_high,
                    "points": len(lengths),
                    "tail_from": lengths[0] if lengths else None,
                    "tail_to": lengths[-1] if lengths else None,
                    "scale": law and math.exp(law.log_scale),
                }
            )
    return fitted
