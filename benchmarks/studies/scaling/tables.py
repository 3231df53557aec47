"""The tables a run ends with."""

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ...present.units import milliseconds, size
from .analysis import curve_label, frontier, headlines


def print_summary(out: Console, frame: pd.DataFrame, fitted: list[dict]) -> None:
    for mode, points in frame.groupby("mode", sort=True):
        out.print(_scaling_table(f"Time, {mode} (speed-up over naive)", points, _time_cell))
        out.print(_scaling_table(f"Peak memory, {mode} (saving over naive)", points, _memory_cell))
    out.print(_exponent_table(fitted))
    out.print(_frontier_table(frame))
    for line in [*footnotes(frame), *headlines(frame)]:
        out.print(line, markup=False, soft_wrap=True)


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
    for _, row in frame[frame.status == "error"].iterrows():
        label = curve_label(row.provider, row.variant)
        notes.append(f"{label} failed at n={row.seq_len}: {row.reason}")
    inexact = frame[frame.max_error_ratio > 2]
    for _, row in inexact.iterrows():
        label = curve_label(row.provider, row.variant)
        notes.append(
            f"{label} at n={row.seq_len} has {row.max_error_ratio:.2g} times the error of naive."
        )
    return notes


def _scaling_table(title: str, points: pd.DataFrame, cell) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("n", justify="right")
    curves = list(dict.fromkeys(zip(points.provider, points.variant, strict=True)))
    for curve in curves:
        table.add_column(curve_label(*curve), justify="right")
    by_point = {(p.provider, p.variant, p.seq_len): p for p in points.itertuples()}
    for n in sorted(points.seq_len.unique()):
        cells = [cell(by_point.get((*curve, n))) for curve in curves]
        table.add_row(f"{n:,}", *cells)
    return table


def _time_cell(point) -> str:
    if point is None:
        return ""
    if point.status != "ok":
        return point.status
    return milliseconds(point.time_ms) + _factor(point, point.speedup_over_naive)


def _memory_cell(point) -> str:
    if point is None:
        return ""
    if point.status != "ok":
        return point.status
    return size(point.peak_memory_bytes) + _factor(point, point.memory_saving_over_naive)


def _factor(point, ratio: float) -> str:
    if point.provider == "naive" or pd.isna(ratio):
        return ""
    return f" ({ratio:.3g}x)"


def _exponent_table(fitted: list[dict]) -> Table:
    table = Table(
        title="Exponents: cost ~ n^e over the tail, 95 % interval",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for name in ("curve", "mode", "metric"):
        table.add_column(name)
    for name in ("exponent", "interval", "fitted over"):
        table.add_column(name, justify="right")
    for law in fitted:
        exponent = "-" if law["exponent"] is None else f"{law['exponent']:.2f}"
        interval = "" if law["exponent"] is None else f"{law['ci_low']:.2f} .. {law['ci_high']:.2f}"
        table.add_row(
            curve_label(law["provider"], law["variant"]),
            law["mode"],
            law["metric"],
            exponent,
            interval,
            fitted_over(law),
        )
    return table


def fitted_over(law: dict) -> str:
    if law["exponent"] is None:
        return "too few points"
    return f"{law['points']} lengths, {law['tail_from']:,} to {law['tail_to']:,}"


def _frontier_table(frame: pd.DataFrame) -> Table:
    table = Table(title="How far each goes", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("curve", "mode"):
        table.add_column(name)
    for name in ("longest that ran", "first that did not"):
        table.add_column(name, justify="right")
    for line in frontier(frame).itertuples():
        longest = "none" if pd.isna(line.longest_ok) else f"{line.longest_ok:,}"
        failed = "" if pd.isna(line.first_failed) else f"{line.first_failed:,} ({line.failure})"
        table.add_row(curve_label(line.provider, line.variant), line.mode, longest, failed)
    return table
