"""What the rows of a run say: speed and memory relative to naive attention."""

import pandas as pd

from .point import AXES, BASELINE, OURS, PROVIDERS

COLUMNS = [
    *(*AXES, "status", "reason", "time_ms", "time_ms_p20", "time_ms_p80", "repeats"),
    *("tokens_per_s", "rate", "naive_ms", "speedup", "speedup_low", "speedup_high"),
    *("peak_memory_bytes", "memory_saving", "loss"),
    *("shape", "batch", "new_tokens", "dtype", "device"),
]


def summarize(rows: list[dict]) -> pd.DataFrame:
    """One line for each measurement, sorted, with memory relative to naive, and the rate to draw.

    The rate is naive's tokens per second times the speed-up that was measured in turns. Rates of
    two processes cannot be compared: they differed by a tenth for the same work.
    """
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    frame["reason"] = frame["reason"].fillna("")
    naive = {
        (row["task"], row["seq_len"]): row
        for row in rows
        if row["provider"] == BASELINE and row["status"] == "ok"
    }
    base = [naive.get(at, {}) for at in zip(frame.task, frame.seq_len, strict=True)]
    naive_memory, naive_rate = (
        pd.Series([row.get(column) for row in base], dtype=float)
        for column in ("peak_memory_bytes", "tokens_per_s")
    )
    frame["memory_saving"] = naive_memory / frame.peak_memory_bytes.astype(float).clip(lower=1e-9)
    frame["rate"] = (naive_rate * frame.speedup.astype(float)).fillna(
        frame.tokens_per_s.astype(float)
    )
    return frame.sort_values(["task", "seq_len", "provider"], ignore_index=True)


def in_order(providers) -> list[str]:
    return [provider for provider in PROVIDERS if provider in set(providers)]


def headlines(frame: pd.DataFrame) -> list[str]:
    """The gain over naive attention, at the longest length that naive reaches."""
    ours = frame[(frame.provider == OURS) & frame.speedup.notna()]
    lines = []
    for task, points in ours.groupby("task", sort=True):
        best = points.loc[points.seq_len.idxmax()]
        lines.append(
            f"At n = {best.seq_len:,}, {task} has {best.speedup:.3g} times the speed and "
            f"1/{best.memory_saving:.3g} of the memory of naive attention."
        )
    return lines


def footnotes(frame: pd.DataFrame) -> list[str]:
    return [
        f"{p.provider} {p.task} at {p.seq_len:,}: {p.status} ({p.reason})"
        for p in frame[frame.status != "ok"].itertuples()
    ]
