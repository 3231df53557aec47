"""The tables a run of decoding ends with."""

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ...present.units import milliseconds, size
from .analysis import headlines, problem_label
from .providers import OURS


def print_summary(out: Console, frame: pd.DataFrame, laws: list[dict]) -> None:
    out.print(_measurements(frame))
    out.print(_laws(laws))
    for line in [*footnotes(frame), *headlines(frame)]:
        out.print(line, markup=False, soft_wrap=True)


def footnotes(frame: pd.DataFrame) -> list[str]:
    notes = [
        f"{p.provider} at {problem_label(p)}: {p.status} ({p.reason})"
        for p in frame[frame.status != "ok"].itertuples()
    ]
    stored = frame[(frame.provider == OURS) & (frame.kv_dtype == frame.dtype)]
    notes += [
        f"{p.provider} at {problem_label(p)} has {p.max_error_ratio:.2g} times the error of naive."
        for p in stored[stored.max_error_ratio > 2].itertuples()
    ]
    return notes


HEAD = (
    *("provider", "batch", "context", "page", "group", "stored as", "time", "tokens/s"),
    *("GB/s", "of a copy", "over contiguous", "cache", "step", "error"),
)


def cells(p) -> list[str]:
    """A measurement as a line under HEAD."""
    start = [
        *(p.provider, str(p.batch), f"{p.context:,}", str(p.page_size or ""), str(p.group)),
        p.kv_dtype,
    ]
    if p.status != "ok":
        return [*start, p.status, *[""] * (len(HEAD) - len(start) - 1)]
    return [
        *start,
        milliseconds(p.time_ms),
        f"{p.tokens_per_s:,.0f}" if p.tokens_per_s >= 10 else f"{p.tokens_per_s:.2g}",
        "" if pd.isna(p.gbytes_per_s) else f"{p.gbytes_per_s:.3g}",
        "" if pd.isna(p.copy_share) else f"{p.copy_share:.0%}",
        "" if pd.isna(p.speedup) else f"{p.speedup:.2f}x",
        size(p.cache_bytes) if p.cache_bytes else "",
        milliseconds(p.step_ms) if p.step_ms else "",
        "" if pd.isna(p.max_error_ratio) else f"{p.max_error_ratio:.2f}",
    ]


def _measurements(frame: pd.DataFrame) -> Table:
    table = Table(
        title="One token for every sequence, one layer", box=box.SIMPLE_HEAD, title_justify="left"
    )
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("provider", "stored as") else "right")
    for _, points in frame.groupby(["batch", "group"], sort=True):
        for p in points.sort_values(["context", "provider", "kv_dtype"]).itertuples():
            table.add_row(*cells(p))
        table.add_section()
    return table


def _laws(laws: list[dict]) -> Table:
    table = Table(
        title="The cost of a token against the context: ~ n^e over the tail, 95 % interval",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("provider")
    for name in ("exponent", "interval", "fitted over"):
        table.add_column(name, justify="right")
    for law in laws:
        table.add_row(*law_cells(law))
    return table


def law_cells(law: dict) -> list[str]:
    if law["exponent"] is None:
        return [law["provider"], "-", "", "too few points"]
    return [
        law["provider"],
        f"{law['exponent']:.2f}",
        f"{law['ci_low']:.2f} .. {law['ci_high']:.2f}",
        f"{law['tail_from']:,} to {law['tail_to']:,}",
    ]
