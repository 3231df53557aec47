"""Memory traffic against hidden size, one panel for each op."""

import itertools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ...present import figures
from .tables import in_order


@dataclass(frozen=True)
class Look:
    """The look of a curve. Markers shrink in the order of drawing, so that equal curves show."""

    color: str
    marker: str
    markersize: float
    markerfacecolor: str | None = None


# In the order of drawing.
LOOKS = {
    "torch": Look(figures.BLACK, "o", 9, "white"),
    "compile": Look(figures.BLUE, "s", 7, "white"),
    "liger": Look(figures.GREEN, "D", 6),
    "fused": Look(figures.VERMILION, "^", 5),
}
OTHER = Look(figures.PURPLE, "*", 7)
MOST_COLUMNS = 4
PANEL = (2.9, 2.4)
LEAST_WIDTH = 5.5
HEAD = 1.2
ROOM = 1.6
FEW_DECADES = 60


def draw_all(frame: pd.DataFrame, copy: float | None, folder: Path, caption: str) -> list[Path]:
    """One picture for each mode, as png and svg; returns the paths of the latter."""
    return [
        figures.save(
            draw(points, copy, f"{caption}, {mode}"),
            folder / f"bandwidth-{mode.replace('+', '-')}.svg",
        )
        for mode, points in frame.groupby("mode", sort=True)
    ]


def draw(points: pd.DataFrame, copy: float | None, caption: str):
    ops = _curves(points)
    columns = min(MOST_COLUMNS, len(ops))
    lines = math.ceil(len(ops) / columns)
    figure, panels = plt.subplots(
        *(lines, columns),
        figsize=(max(LEAST_WIDTH, PANEL[0] * columns), PANEL[1] * lines + HEAD),
        squeeze=False,
        layout="constrained",
    )
    figure.supxlabel(f"hidden size\n{caption}", fontsize=9, color="#444444")
    figure.supylabel("GB/s", fontsize=9, color="#444444")
    measured = points[points.status == "ok"]
    providers = in_order(measured.provider.unique())
    for axes, op in zip(panels.flat, ops, strict=False):
        here = points[points.op == op]
        _panel(axes, measured[measured.op == op], providers, copy)
        figures.length_axis(axes, sorted(here.hidden.unique()))
        rows = ", ".join(f"{n:,}" for n in sorted(here.rows.unique()))
        axes.set_title(f"{op.rpartition(':')[2]}\n{rows} rows", fontsize=9)
    for axes in panels.flat[len(ops) :]:
        axes.remove()
    _legend(figure, providers, copy)
    return figure


def _curves(points: pd.DataFrame) -> list[str]:
    """The ops that were measured at several sizes, or all if none was."""
    sizes = points.groupby("op").hidden.nunique()
    return sorted(sizes.index[sizes > 1] if (sizes > 1).any() else sizes.index)


def _panel(axes: Axes, points: pd.DataFrame, providers: list[str], copy: float | None) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted(points.rows.unique(), reverse=True)  # the most rows are drawn solid
    for provider, (i, rows) in itertools.product(providers, enumerate(sizes)):
        curve = points[(points.provider == provider) & (points.rows == rows)]
        dashes = figures.DASHES[i % len(figures.DASHES)]
        axes.plot(curve.hidden, curve.gbytes_per_s, linestyle=dashes, **_look(provider))
    if copy:
        axes.axhline(copy, zorder=1, **figures.COPY)
    _traffic_axis(axes)
    axes.tick_params(labelsize=8)
    figures.plain(axes)


def _traffic_axis(axes: Axes) -> None:
    """Room above and below; ticks at powers of ten, and at 2 and 5 times these if few fit."""
    found = [y for line in axes.lines for y in line.get_ydata()]
    low, high = min(found, default=1.0) / ROOM, max(found, default=1.0) * ROOM
    steps = (1, 2, 5) if high / low < FEW_DECADES else (1,)
    axes.set_ylim(low, high)
    figures.value_axis(axes, 10, "{:g}".format, steps)


def _look(provider: str) -> dict:
    return {"linewidth": 1.6, "clip_on": False, **asdict(LOOKS.get(provider, OTHER))}


def _legend(figure, providers: list[str], copy: float | None) -> None:
    entries = [Line2D([], [], label=provider, **_look(provider)) for provider in providers]
    if copy:
        entries.append(Line2D([], [], label=f"a copy, {copy:.3g} GB/s", **figures.COPY))
    figure.legend(
        handles=entries,
        loc="outside upper center",
        ncols=len(entries),
        frameon=False,
        fontsize=9,
        title="Memory traffic of the fused ops",
        title_fontsize=12,
    )
