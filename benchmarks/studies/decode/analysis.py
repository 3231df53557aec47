"""What the rows of a run say: shares of the copy bandwidth, power laws, totals."""

import math

import numpy as np
import pandas as pd

from ...present.fits import fit_tail
from .point import AXES, DecodePoint
from .providers import BASELINE, OURS, WITHOUT

SWEPT = ("batch", "page_size", "group", "kv_dtype")
COLUMNS = [
    *(*AXES, "status", "reason", "time_ms", "time_ms_p20", "time_ms_p80", "repeats", "step_ms"),
    *("tokens_per_s", "contiguous_ms", "speedup", "speedup_low", "speedup_high"),
    *("gbytes_per_s", "copy_share", "cache_bytes", "peak_memory_bytes", "max_error_ratio"),
    *("heads", "head_dim", "dtype", "device"),
]


def summarize(rows: list[dict], copy_gbytes_per_s: float | None) -> pd.DataFrame:
    """One line for each measurement, sorted, with traffic as a share of the copy bandwidth."""
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    frame["reason"] = frame["reason"].fillna("")
    numbers = [*COLUMNS[COLUMNS.index("time_ms") : COLUMNS.index("heads")]]
    frame[numbers] = frame[numbers].astype(float)
    if copy_gbytes_per_s:
        frame["copy_share"] = frame.gbytes_per_s / copy_gbytes_per_s
    return frame.sort_values([*AXES[1:], "provider"], ignore_index=True)


def curves(frame: pd.DataFrame, base: DecodePoint) -> pd.DataFrame:
    """The points that differ from `base` in provider and context alone."""
    return frame[_like(frame, base, SWEPT)]


def sweep(frame: pd.DataFrame, base: DecodePoint, name: str, context: int) -> pd.DataFrame:
    """The points at `context` that differ from `base` in provider and `name` alone."""
    same = [other for other in SWEPT if other != name]
    return frame[_like(frame, base, same) & (frame.context == context)]


def _like(frame: pd.DataFrame, base: DecodePoint, names) -> pd.Series:
    alike = pd.Series(True, index=frame.index)
    for name in names:
        same = frame[name] == getattr(base, name)
        alike &= same | (frame.page_size == 0) if name == "page_size" else same
    return alike


def laws(points: pd.DataFrame) -> list[dict]:
    """For each provider the power law by which the time of a token grows with the context."""
    found = []
    for provider, curve in points[points.status == "ok"].groupby("provider", sort=True):
        times = dict(zip(curve.context, curve.time_ms, strict=True))
        found.append({"provider": provider, **fit_tail(times)})
    return found


def totals(curve: pd.DataFrame) -> pd.DataFrame:
    """The time to generate a sequence of each length: the sum over its tokens.

    Between two measured contexts the time of a token is interpolated by a power law; before the
    first it is that of the first.
    """
    ordered = curve.sort_values("context")
    n, ms = ordered.context.to_numpy(float), ordered.time_ms.to_numpy(float)
    spans = [n[0] * ms[0]] if len(n) else []
    for i in range(len(n) - 1):
        slope = math.log(ms[i + 1] / ms[i]) / math.log(n[i + 1] / n[i])
        spans.append(_under_power_law(n[i], n[i + 1], ms[i], slope))
    return ordered.assign(total_ms=np.cumsum(spans))


def _under_power_law(start: float, stop: float, value: float, slope: float) -> float:
    """The integral from `start` to `stop` of value * (x / start) ** slope."""
    if math.isclose(slope, -1):
        return value * start * math.log(stop / start)
    return value * start * ((stop / start) ** (slope + 1) - 1) / (slope + 1)


def headlines(frame: pd.DataFrame) -> list[str]:
    """What the cache saves, its traffic beside that of a copy, and what paging costs."""
    lines = []
    ok = frame[frame.status == "ok"]
    problem = ["batch", "context", "group", "kv_dtype"]
    ours = ok[ok.provider == OURS]
    both = ours.merge(ok[ok.provider == WITHOUT], on=problem, suffixes=("", "_without"))
    if len(both):
        best = both.loc[both.context.idxmax()]
        lines.append(
            f"With {best.context:,} tokens of context, computing all again takes "
            f"{best.time_ms_without / best.time_ms:,.3g} times as long as reading the cache."
        )
    if ours.copy_share.notna().any():
        best = ours.loc[ours.copy_share.idxmax()]
        lines.append(
            f"The paged cache is read at up to {best.gbytes_per_s:.3g} GB/s, "
            f"{best.copy_share:.0%} of the copy bandwidth ({problem_label(best)})."
        )
    plain = ours[(ours.kv_dtype == ours.dtype) & ours.speedup.notna()]
    if len(plain):
        worst = plain.loc[plain.speedup.idxmin()]
        lines.append(
            f"Beside a contiguous cache with torch's attention it has {worst.speedup:.3g} to "
            f"{plain.speedup.max():.3g} times the speed, least at {problem_label(worst)}."
        )
    return lines


def problem_label(point) -> str:
    pages = f", pages of {point.page_size}" if point.page_size else ""
    return (
        f"batch {point.batch}, {point.context:,} tokens, group {point.group}, "
        f"{point.kv_dtype}{pages}"
    )


def in_order(providers) -> list[str]:
    known = [OURS, BASELINE, WITHOUT]
    return sorted(providers, key=[*known, *sorted(set(providers) - set(known))].index)
