"""The tables a run of the ops ends with."""

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ...present.units import milliseconds, size
from .analysis import MISSED, SLOWEST, headlines, problem_label, worst_cases
from .providers import BASELINE, PROVIDERS


def print_summary(out: Console, frame: pd.DataFrame) -> None:
    for mode, points in frame.groupby("mode", sort=True):
        for title, cell in CELLS.items():
            out.print(_grid(f"{title.format(mode=mode)}", points, cell))
    out.print(_against_torch(frame))
    for line in [*footnotes(frame), *headlines(frame)]:
        out.print(line, markup=False, soft_wrap=True)


def footnotes(frame: pd.DataFrame) -> list[str]:
    notes = [
        f"{provider} {op} is unsupported: {reason}."
        for (provider, op, reason), _ in frame[frame.status == "unsupported"].groupby(
            ["provider", "op", "reason"]
        )
    ]
    notes += [
        f"{p.provider} {problem_label(p)} failed: {p.reason}"
        for p in frame[frame.status == "error"].itertuples()
    ]
    notes += [
        f"{p.provider} {problem_label(p)} has {p.max_error_ratio:.2g} times the error of torch."
        for p in frame[frame.max_error_ratio > 2].itertuples()
    ]
    return notes


def _grid(title: str, points: pd.DataFrame, cell) -> Table:
    """A line for every problem, a column for every provider."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("op")
    for name in ("rows", "hidden", *(providers := in_order(points.provider.unique()))):
        table.add_column(name, justify="right")
    for op, of_op in points.groupby("op", sort=True):
        for (rows, hidden), here in of_op.groupby(["rows", "hidden"], sort=True):
            found = {point.provider: point for point in here.itertuples()}
            cells = [_cell(found.get(provider), cell) for provider in providers]
            table.add_row(op, f"{rows:,}", f"{hidden:,}", *cells)
        table.add_section()
    return table


def in_order(providers) -> list[str]:
    """As in the table of providers; others after them."""
    return sorted(providers, key=[*PROVIDERS, *sorted(set(providers) - set(PROVIDERS))].index)


def _cell(point, cell) -> str:
    if point is None:
        return ""
    return cell(point) if point.status == "ok" else point.status


def _time(point) -> str:
    return milliseconds(point.time_ms) + _times(point, point.speedup)


def _memory(point) -> str:
    return size(point.peak_memory_bytes) + _times(point, point.memory_saving)


def _traffic(point) -> str:
    share = "" if pd.isna(point.copy_share) else f" ({point.copy_share:.0%})"
    return f"{point.gbytes_per_s:.3g} GB/s{share}"


def _error(point) -> str:
    return "not finite" if pd.isna(point.max_error_ratio) else f"{point.max_error_ratio:.2f}"


def _times(point, ratio: float) -> str:
    return "" if point.provider == BASELINE or pd.isna(ratio) else f" ({ratio:.3g}x)"


CELLS = {
    "Time, {mode} (speed-up over torch eager, in turns with it)": _time,
    "Traffic, {mode} (share of the copy bandwidth)": _traffic,
    "Peak memory, {mode} (saving over torch eager)": _memory,
    "Worst error of outputs and gradients, {mode}, in errors of torch eager": _error,
}


def _against_torch(frame: pd.DataFrame) -> Table:
    table = Table(
        title=f"Worst case beside torch eager: no op may take more than {SLOWEST} times as long",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for name in ("op", "mode"):
        table.add_column(name)
    for name in ("rows", "hidden", "torch", "fused", "speed-up", "95 % interval", "bar"):
        table.add_column(name, justify="right")
    for p in worst_cases(frame).itertuples():
        table.add_row(
            *(p.op, p.mode, f"{p.rows:,}", f"{p.hidden:,}"),
            *(milliseconds(p.torch_ms), milliseconds(p.time_ms), f"{p.speedup:.3g}x"),
            *(f"{p.speedup_low:.3g} .. {p.speedup_high:.3g}", p.verdict),
            style="bold red" if p.verdict == MISSED else None,
        )
    return table
