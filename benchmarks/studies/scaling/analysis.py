"""What the rows of a run say: speed-ups, savings, exponents, and how long each curve gets."""

import pandas as pd

from ...harness.point import FAILURES
from ...present.fits import fit_tail
from ..attention.point import CURVE
from ..attention.variants import parse

COLUMNS = [
    *("provider", "variant", "mode", "seq_len", "status", "reason"),
    *("time_ms", "time_ms_p20", "time_ms_p80", "repeats", "peak_memory_bytes", "mask_bytes"),
    *("tflops", "max_error_ratio", "batch", "heads", "kv_heads", "head_dim", "dtype", "device"),
    *("speedup_over_naive", "memory_saving_over_naive", "naive_variant"),
]
METRICS = {"time": "time_ms", "memory": "peak_memory_bytes"}


def summarize(rows: list[dict]) -> pd.DataFrame:
    """One line for each measurement, sorted, with time and memory relative to naive attention.

    They are relative to naive on the same variant where that was measured, and to naive without a
    mask elsewhere; `naive_variant` says which.
    """
    naive = {
        (row["variant"], row["mode"], row["seq_len"]): row
        for row in rows
        if row["provider"] == "naive" and row["status"] == "ok"
    }
    frame = pd.DataFrame([_beside_naive(row, naive) for row in rows], columns=COLUMNS)
    frame["reason"] = frame["reason"].fillna("")
    return frame.sort_values([*CURVE, "seq_len"], ignore_index=True)


def _beside_naive(row: dict, naive: dict) -> dict:
    for variant in (row["variant"], "full"):
        base = naive.get((variant, row["mode"], row["seq_len"]))
        if base and row["status"] == "ok":
            return {
                **row,
                "speedup_over_naive": base["time_ms"] / row["time_ms"],
                "memory_saving_over_naive": base["peak_memory_bytes"]
                / max(1, row["peak_memory_bytes"]),
                "naive_variant": variant,
            }
    return row


def fit_curves(rows: list[dict]) -> list[dict]:
    """One power law for each curve and metric; `exponent` is None where a curve is too short."""
    curves: dict[tuple, dict[int, dict]] = {}
    for row in rows:
        if row["status"] == "ok":
            curves.setdefault(tuple(row[c] for c in CURVE), {})[row["seq_len"]] = row
    fitted = []
    for curve, by_length in sorted(curves.items()):
        for metric, column in METRICS.items():
            values = {n: row[column] for n, row in by_length.items() if (row[column] or 0) > 0}
            named = dict(zip(CURVE, curve, strict=True))
            fitted.append({**named, "metric": metric, **fit_tail(values)})
    return fitted


def frontier(frame: pd.DataFrame) -> pd.DataFrame:
    """For every curve, the longest length that ran and the first that did not."""
    lines = []
    for curve, points in frame.groupby(list(CURVE), sort=True):
        ran = points[points.status == "ok"].seq_len
        failed = points[points.status.isin(FAILURES)]
        first = failed.loc[failed.seq_len.idxmin()] if len(failed) else None
        lines.append(
            {
                **dict(zip(CURVE, curve, strict=True)),
                "longest_ok": int(ran.max()) if len(ran) else None,
                "first_failed": None if first is None else int(first.seq_len),
                "failure": None if first is None else first.status,
            }
        )
    return pd.DataFrame(lines).astype({"longest_ok": "Int64", "first_failed": "Int64"})


def headlines(frame: pd.DataFrame) -> list[str]:
    """The gain over naive attention, at the longest length that naive reaches."""
    compared = frame[(frame.provider == "fused") & frame.speedup_over_naive.notna()]
    lines = []
    for (variant, mode), points in compared.groupby(["variant", "mode"], sort=True):
        best = points.loc[points.seq_len.idxmax()]
        lines.append(
            f"At n = {best.seq_len:,}, {mode}, {curve_label('fused', variant)} has "
            f"{best.speedup_over_naive:.3g} times the speed and "
            f"1/{best.memory_saving_over_naive:.3g} of the memory of naive attention."
        )
    return lines


def curve_label(provider: str, variant: str) -> str:
    return provider if not parse(variant) else f"{provider} {variant}"
