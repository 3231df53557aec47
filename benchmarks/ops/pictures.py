"""Traffic against hidden size, a panel an op, that survives greyscale: markers and dashes too."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..plots import DASHES, length_axis
from .tables import in_order

# Okabe and Ito's palette; the lightest colour has the largest marker.
COLOURS = {"torch": "#000000", "compile": "#0072B2", "liger": "#009E73", "fused": "#D55E00"}
MARKERS = {"torch": "o", "compile": "s", "liger": "D", "fused": "^"}
OTHER = ("#CC79A7", "*")
COPY = {"color": "#777777", "linestyle": (0, (4, 3)), "linewidth": 1.2}
MOST_COLUMNS = 4
PANEL = (3.1, 2.5)
HEAD = 1.1


def draw_all(frame: pd.DataFrame, copy: float | None, folder: Path, caption: str) -> list[Path]:
    """One picture for each mode, as png and svg; returns the paths of the latter."""
    drawn = []
    for mode, points in frame.groupby("mode", sort=True):
        figure = draw(points, copy, f"{caption}, {mode}")
        drawn.append(folder / f"bandwidth-{mode.replace('+', '-')}.svg")
        for path in (drawn[-1], drawn[-1].with_suffix(".png")):
            figure.savefig(path, dpi=150)
        plt.close(figure)
    return drawn


def draw(points: pd.DataFrame, copy: float | None, caption: str):
    ops = sorted(points.op.unique())
    columns = min(MOST_COLUMNS, len(ops))
    lines = math.ceil(len(ops) / columns)
    figure, panels = plt.subplots(
        *(lines, columns),
        figsize=(max(6.0, PANEL[0] * columns), PANEL[1] * lines + HEAD),
        squeeze=False,
        layout="constrained",
    )
    figure.suptitle("Memory traffic of the fused ops", fontsize=13)
    figure.supxlabel(f"hidden size\n{caption}", fontsize=9, color="#444444")
    figure.supylabel("GB/s", fontsize=9, color="#444444")
    measured = points[points.status == "ok"]
    for axes, op in zip(panels.flat, ops, strict=False):
        here = points[points.op == op]
        _panel(axes, measured[measured.op == op], sorted(here.hidden.unique()), copy)
        rows = ", ".join(f"{n:,}" for n in sorted(here.rows.unique()))
        axes.set_title(f"{op}, {rows} rows", fontsize=10)
    for axes in panels.flat[len(ops) :]:
        axes.set_visible(False)
    _legend(figure, in_order(measured.provider.unique()), copy)
    return figure


def _panel(axes: Axes, points: pd.DataFrame, hidden: list[int], copy: float | None) -> None:
    axes.set_xscale("log", base=2)
    sizes = sorted(points.rows.unique(), reverse=True)  # the most rows are drawn solid
    for (provider, rows), curve in points.groupby(["provider", "rows"], sort=True):
        colour, marker = _look(provider)
        axes.plot(
            curve.hidden,
            curve.gbytes_per_s,
            color=colour,
            marker=marker,
            markerfacecolor=colour if rows == sizes[0] else "white",
            linestyle=DASHES[sizes.index(rows) % len(DASHES)],
            markersize=6,
            linewidth=1.6,
        )
    if copy:
        axes.axhline(copy, zorder=1, **COPY)
    axes.set_ylim(bottom=0)
    length_axis(axes, hidden)
    axes.margins(x=0.08)
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _look(provider: str) -> tuple[str, str]:
    return COLOURS.get(provider, OTHER[0]), MARKERS.get(provider, OTHER[1])


def _legend(figure, providers: list[str], copy: float | None) -> None:
    entries = []
    for provider in providers:
        colour, marker = _look(provider)
        entries.append(Line2D([], [], color=colour, marker=marker, markersize=6, label=provider))
    if copy:
        entries.append(Line2D([], [], label=f"a copy, {copy:.3g} GB/s", **COPY))
    figure.legend(handles=entries, loc="outside upper center", ncols=5, frameon=False, fontsize=9)
