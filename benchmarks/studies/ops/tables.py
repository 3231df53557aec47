"""The tables that a run of the ops ends with."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from ...present.tables import print_lines, table
from ...present.units import milliseconds, or_blank, size
from .analysis import MISSED, SLOWEST, headlines, problem_label, worst_cases
from .providers import BASELINE, PROVIDERS


def print_summary(out: Console, frame: pd.DataFrame) -> None:
    for mode, points in frame.groupby("mode", sort=True):
        for title, cell in CELLS.items():
            out.print(_by_problem(title.format(mode=mode), points, cell))
    out.print(_worst(frame))
    print_lines(out, [*footnotes(frame), *headlines(frame)])


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


def _by_problem(title: str, points: pd.DataFrame, cell) -> Table:
    """A line for every problem, a column for every provider."""
    providers = in_order(points.provider.unique())
    made = table(title, ("op", "rows", "hidden", *providers), text=("op",))
    for op, of_op in points.groupby("op", sort=True):
        for (rows, hidden), here in of_op.groupby(["rows", "hidden"], sort=True):
            found = {point.provider: point for point in here.itertuples()}
            cells = [_cell(found.get(provider), cell) for provider in providers]
            made.add_row(op, f"{rows:,}", f"{hidden:,}", *cells)
        made.add_section()
    return made


def in_order(providers) -> list[str]:
    """Providers in the order of PROVIDERS; others after them."""
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
    return f"{point.gbytes_per_s:.3g} GB/s" + or_blank(point.copy_share, " ({:.0%})")


def _error(point) -> str:
    return or_blank(point.max_error_ratio, "{:.2f}") or "not finite"


def _times(point, ratio: float) -> str:
    return "" if point.provider == BASELINE else or_blank(ratio, " ({:.3g}x)")


CELLS = {
    "Time, {mode} (speed-up over torch eager, in turns with it)": _time,
    "Traffic, {mode} (share of the copy bandwidth)": _traffic,
    "Peak memory, {mode} (saving over torch eager)": _memory,
    "Worst error of outputs and gradients, {mode}, in errors of torch eager": _error,
}


WORST_HEAD = (
    "op",
    "mode",
    "rows",
    "hidden",
    "torch",
    "fused",
    "speed-up",
    "95 % interval",
    "target",
)


def worst_cells(p) -> list[str]:
    """The slowest point of an op as cells under WORST_HEAD."""
    return [
        *(p.op, p.mode, f"{p.rows:,}", f"{p.hidden:,}"),
        *(milliseconds(p.torch_ms), milliseconds(p.time_ms), f"{p.speedup:.3g}x"),
        *(f"{p.speedup_low:.3g} to {p.speedup_high:.3g}", p.verdict),
    ]


def _worst(frame: pd.DataFrame) -> Table:
    title = f"Worst case beside torch eager: no op may take more than {SLOWEST} times as long"
    made = table(title, WORST_HEAD, text=("op", "mode"))
    for p in worst_cases(frame).itertuples():
        made.add_row(*worst_cells(p), style="bold red" if p.verdict == MISSED else None)
    return made
