"""What the rows of a run say: speed-ups, savings, shares of the copy bandwidth, verdicts."""

import pandas as pd

from .point import AXES
from .providers import BASELINE, OURS

PROBLEM = ("op", "mode", "rows", "hidden")
COLUMNS = [
    *(*AXES, "status", "reason", "time_ms", "time_ms_p20", "time_ms_p80", "repeats"),
    *("torch_ms", "speedup", "speedup_low", "speedup_high", "gbytes_per_s", "copy_share"),
    *("tflops", "peak_memory_bytes", "memory_saving", "max_error_ratio", "dtype", "device"),
]
SLOWEST = 1.15
FLOOR = 1 / SLOWEST
HOLDS, UNCLEAR, MISSED = "holds", "unclear", "MISSED"
WORTH_SAYING = 2.0


def summarize(rows: list[dict], copy_gbytes_per_s: float | None) -> pd.DataFrame:
    """One line for each measurement, sorted; memory relative to torch, traffic to a copy."""
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    frame["reason"] = frame["reason"].fillna("")
    torch_bytes = {
        tuple(row[name] for name in PROBLEM): row["peak_memory_bytes"]
        for row in rows
        if row["provider"] == BASELINE and row["status"] == "ok"
    }
    theirs = [torch_bytes.get(problem) for problem in frame[list(PROBLEM)].itertuples(index=False)]
    frame["memory_saving"] = pd.Series(theirs, dtype=float) / frame.peak_memory_bytes.clip(lower=1)
    if copy_gbytes_per_s:
        frame["copy_share"] = frame.gbytes_per_s / copy_gbytes_per_s
    return frame.sort_values([*PROBLEM, "provider"], ignore_index=True)


def verdict(point) -> str:
    """Whether a point takes at most SLOWEST times as long as torch eager.

    "unclear" if the median says no but its 95 % interval includes yes.
    """
    if point.speedup >= FLOOR:
        return HOLDS
    return UNCLEAR if point.speedup_high >= FLOOR else MISSED


def worst_cases(frame: pd.DataFrame) -> pd.DataFrame:
    """For every fused op its slowest point relative to torch, with the verdict on it."""
    ours = frame[(frame.provider == OURS) & frame.speedup.notna()]
    if not len(ours):
        return ours.assign(verdict=[])
    worst = ours.loc[ours.groupby("op", sort=True).speedup.idxmin()]
    return worst.assign(verdict=[verdict(point) for point in worst.itertuples()])


def headlines(frame: pd.DataFrame) -> list[str]:
    """Whether an op is slower than torch's own, which is the worst, and where memory is saved."""
    worst = worst_cases(frame)
    lines = []
    if len(worst):
        slower = worst[worst.verdict != HOLDS]
        found = (
            f"No op is slower than {SLOWEST} times torch's own"
            if not len(slower)
            else f"Slower than {SLOWEST} times torch's own: "
            + ", ".join(f"{p.op} ({p.verdict})" for p in slower.itertuples())
        )
        least = min(worst.itertuples(), key=lambda point: point.speedup)
        lines.append(f"{found}; the worst case is {problem_label(least)}, {least.speedup:.3g}x.")
    ours = frame[(frame.provider == OURS) & (frame.memory_saving >= WORTH_SAYING)]
    for _, points in ours.groupby(["op", "mode"], sort=True):
        best = max(points.itertuples(), key=lambda point: point.memory_saving)
        lines.append(f"{problem_label(best)} needs 1/{best.memory_saving:.3g} of torch's memory.")
    return lines


def problem_label(point) -> str:
    return f"{point.op} {point.mode} at {point.rows:,} x {point.hidden:,}"
