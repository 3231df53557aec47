"""The tables that a run of whole models ends with."""

import pandas as pd
from rich.console import Console

from ...present.tables import print_lines, table
from ...present.units import milliseconds, or_blank, size
from .analysis import footnotes, headlines
from .point import BASELINE

HEAD = (
    *("provider", "n", "time", "20 to 80 %", "tokens/s", "over naive", "95 %"),
    *("peak memory", "saving", "loss"),
)


def print_summary(out: Console, frame: pd.DataFrame) -> None:
    for task, points in frame.groupby("task", sort=False):
        made = table(task, HEAD, text=("provider",))
        for _, here in points.groupby("seq_len", sort=True):
            for point in here.itertuples():
                made.add_row(*cells(point))
            made.add_section()
        out.print(made)
    print_lines(out, [*footnotes(frame), *headlines(frame)])


def cells(p) -> list[str]:
    """A measurement as cells under HEAD."""
    start = [p.provider, f"{p.seq_len:,}"]
    if p.status != "ok":
        return [*start, p.status, *[""] * (len(HEAD) - len(start) - 1)]
    return [
        *start,
        milliseconds(p.time_ms),
        f"{milliseconds(p.time_ms_p20)} to {milliseconds(p.time_ms_p80)}",
        rate(p.rate),
        _times(p, p.speedup),
        "" if pd.isna(p.speedup) else f"{p.speedup_low:.3g} to {p.speedup_high:.3g}",
        size(p.peak_memory_bytes),
        _times(p, p.memory_saving),
        or_blank(p.loss, "{:.4f}"),
    ]


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(p, ratio: float) -> str:
    return "" if p.provider == BASELINE else or_blank(ratio, "{:.3g}x")
