"""The tables a run of the models ends with."""

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ...present.units import milliseconds, size
from .analysis import footnotes, headlines
from .points import BASELINE

HEAD = (
    *("provider", "n", "time", "20 to 80 %", "tokens/s", "over naive", "95 %"),
    *("peak memory", "saving", "loss"),
)


def print_summary(out: Console, frame: pd.DataFrame) -> None:
    for task, points in frame.groupby("task", sort=False):
        table = Table(title=task, box=box.SIMPLE_HEAD, title_justify="left")
        for name in HEAD:
            table.add_column(name, justify="left" if name == "provider" else "right")
        for _, here in points.groupby("seq_len", sort=True):
            for point in here.itertuples():
                table.add_row(*cells(point))
            table.add_section()
        out.print(table)
    for line in [*footnotes(frame), *headlines(frame)]:
        out.print(line, markup=False, soft_wrap=True)


def cells(p) -> list[str]:
    """A measurement as a line under HEAD."""
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
        "" if pd.isna(p.loss) else f"{p.loss:.4f}",
    ]


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(p, ratio: float) -> str:
    return "" if p.provider == BASELINE or pd.isna(ratio) else f"{ratio:.3g}x"
