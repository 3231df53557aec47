"""The tables that a run of decoding ends with."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from ...present.tables import EXPONENT_HEAD, exponent_cells, print_lines, table
from ...present.units import milliseconds, or_blank, size
from .analysis import headlines, problem_label
from .providers import OURS


def print_summary(out: Console, frame: pd.DataFrame, laws: list[dict]) -> None:
    out.print(_measurements(frame))
    out.print(_laws(laws))
    print_lines(out, [*footnotes(frame), *headlines(frame)])


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
    """A measurement as cells under HEAD."""
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
        or_blank(p.gbytes_per_s, "{:.3g}"),
        or_blank(p.copy_share, "{:.0%}"),
        or_blank(p.speedup, "{:.2f}x"),
        size(p.cache_bytes) if p.cache_bytes else "",
        milliseconds(p.step_ms) if p.step_ms else "",
        or_blank(p.max_error_ratio, "{:.2f}"),
    ]


def _measurements(frame: pd.DataFrame) -> Table:
    made = table("One token for every sequence, one layer", HEAD, text=("provider", "stored as"))
    for _, points in frame.groupby(["batch", "group"], sort=True):
        for p in points.sort_values(["context", "provider", "kv_dtype"]).itertuples():
            made.add_row(*cells(p))
        made.add_section()
    return made


def _laws(laws: list[dict]) -> Table:
    title = "Exponents: cost of a token ~ context^e over the tail"
    made = table(title, ("provider", *EXPONENT_HEAD), text=("provider",))
    for law in laws:
        made.add_row(law["provider"], *exponent_cells(law))
    return made
