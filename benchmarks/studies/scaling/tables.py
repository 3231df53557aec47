"""The tables that a run of scaling ends with."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from ...present.tables import EXPONENT_HEAD, exponent_cells, print_lines, table
from ...present.units import milliseconds, or_blank, size
from .analysis import curve_label, frontier, headlines

FRONTIER_HEAD = ("curve", "mode", "longest that ran", "first that did not")


def print_summary(out: Console, frame: pd.DataFrame, fitted: list[dict]) -> None:
    for mode, points in frame.groupby("mode", sort=True):
        out.print(_by_length(f"Time, {mode} (speed-up over naive)", points, _time))
        out.print(_by_length(f"Peak memory, {mode} (saving over naive)", points, _memory))
    out.print(_exponents(fitted))
    out.print(_frontier(frame))
    print_lines(out, [*footnotes(frame), *headlines(frame)])


def footnotes(frame: pd.DataFrame) -> list[str]:
    notes = []
    other = frame[(frame.naive_variant == "full") & (frame.variant != "full")]
    if len(other):
        specs = ", ".join(sorted(other.variant.unique()))
        notes.append(f"{specs}: compared with naive attention without a mask.")
    for (provider, variant, reason), _ in frame[frame.status == "unsupported"].groupby(
        ["provider", "variant", "reason"]
    ):
        notes.append(f"{curve_label(provider, variant)} is unsupported: {reason}.")
    for p in frame[frame.status == "error"].itertuples():
        notes.append(f"{curve_label(p.provider, p.variant)} failed at n={p.seq_len}: {p.reason}")
    for p in frame[frame.max_error_ratio > 2].itertuples():
        label = curve_label(p.provider, p.variant)
        notes.append(
            f"{label} at n={p.seq_len} has {p.max_error_ratio:.2g} times the error of naive."
        )
    return notes


def _by_length(title: str, points: pd.DataFrame, cell) -> Table:
    """A line for every length, a column for every curve."""
    curves = list(dict.fromkeys(zip(points.provider, points.variant, strict=True)))
    made = table(title, ["n", *(curve_label(*curve) for curve in curves)], text=())
    by_point = {(p.provider, p.variant, p.seq_len): p for p in points.itertuples()}
    for n in sorted(points.seq_len.unique()):
        made.add_row(f"{n:,}", *(_cell(by_point.get((*curve, n)), cell) for curve in curves))
    return made


def _cell(point, cell) -> str:
    if point is None:
        return ""
    return cell(point) if point.status == "ok" else point.status


def _time(point) -> str:
    return milliseconds(point.time_ms) + _factor(point, point.speedup_over_naive)


def _memory(point) -> str:
    return size(point.peak_memory_bytes) + _factor(point, point.memory_saving_over_naive)


def _factor(point, ratio: float) -> str:
    return "" if point.provider == "naive" else or_blank(ratio, " ({:.3g}x)")


def _exponents(fitted: list[dict]) -> Table:
    made = table(
        "Exponents: cost ~ n^e over the tail",
        ("curve", "mode", "metric", *EXPONENT_HEAD),
        text=("curve", "mode", "metric"),
    )
    for law in fitted:
        label = curve_label(law["provider"], law["variant"])
        made.add_row(label, law["mode"], law["metric"], *exponent_cells(law))
    return made


def _frontier(frame: pd.DataFrame) -> Table:
    made = table("How far each goes", FRONTIER_HEAD, text=("curve", "mode"))
    for cells in frontier_cells(frame):
        made.add_row(*cells)
    return made


def frontier_cells(frame: pd.DataFrame) -> list[list[str]]:
    """For every curve the cells under FRONTIER_HEAD."""
    return [
        [
            curve_label(line.provider, line.variant),
            line.mode,
            "none" if pd.isna(line.longest_ok) else f"{line.longest_ok:,}",
            "" if pd.isna(line.first_failed) else f"{line.first_failed:,} ({line.failure})",
        ]
        for line in frontier(frame).itertuples()
    ]
