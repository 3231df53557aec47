"""Traffic against hidden size, a panel an op, that survives grayscale: markers and dashes too."""

import itertools
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ...present.figures import DASHES, length_axis, save
from .tables import in_order


@dataclass(frozen=True)
class Look:
    """Curves that coincide stay visible: each marker is smaller than the one drawn before it."""

    color: str
    marker: str
    markersize: float
    markerfacecolor: str | None = None


# Okabe and Ito's palette, in the order of drawing.
LOOKS = {
    "torch": Look("#000000", "o", 9, "white"),
    "compile": Look("#0072B2", "s", 7, "white"),
    "liger": Look("#009E73", "D", 6),
    "fused": Look("#D55E00", "^", 5),
}
OTHER = Look("#CC79A7", "*", 7)
COPY = {"color": "#777777", "linestyle": (0, (4, 3)), "linewidth": 1.2}
MOST_COLUMNS = 4
PANEL = (2.9, 2.4)
LEAST_WIDTH = 5.5
HEAD = 1.2
ROOM = 1.6
FEW_DECADES = 60


def draw_all(frame: pd.DataFrame, copy: float | None, folder: Path, caption: str) -> list[Path]:
    """One picture for each mode, as png and svg; returns the paths of the latter."""
    return [
        save(
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
        length_axis(axes, sorted(here.hidden.unique()))
        rows = ", ".join(f"{n:,}" for n in sorted(here.rows.unique()))
        axes.set_title(f"{op.rpartition(':')[2]}\n{rows} rows", fontsize=9)
    for axes in panels.flat[len(ops) :]:
        axes.remove()
    _legend(figure, providers, copy)
    return figure


def _curves(points: pd.DataFrame) -> list[str]:
    """The ops measured at several sizes; all, if none is."""
    sizes = points.groupby("op").hidden.nunique()
    return sorted(sizes.index[sizes > 1] if (sizes > 1).any() else sizes.index)


def _panel(axes: Axes, points: pd.DataFrame, providers: list[str], copy: float | None) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = sorted(points.rows.unique(), reverse=True)  # the most rows are drawn solid
    for provider, (i, rows) in itertools.product(providers, enumerate(sizes)):
        curve = points[(points.provider == provider) & (points.rows == rows)]
        dashes = DASHES[i % len(DASHES)]
        axes.plot(curve.hidden, curve.gbytes_per_s, linestyle=dashes, **_look(provider))
    if copy:
        axes.axhline(copy, zorder=1, **COPY)
    _traffic_axis(axes)
    axes.tick_params(labelsize=8)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _traffic_axis(axes: Axes) -> None:
    """Room above and below, and plain numbers: decades, or 1, 2 and 5 where there are few."""
    found = [y for line in axes.lines for y in line.get_ydata()]
    low, high = min(found, default=1.0) / ROOM, max(found, default=1.0) * ROOM
    steps = (1, 2, 5) if high / low < FEW_DECADES else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def _look(provider: str) -> dict:
    return {"linewidth": 1.6, "clip_on": False, **asdict(LOOKS.get(provider, OTHER))}


def _legend(figure, providers: list[str], copy: float | None) -> None:
    entries = [Line2D([], [], label=provider, **_look(provider)) for provider in providers]
    if copy:
        entries.append(Line2D([], [], label=f"a copy, {copy:.3g} GB/s", **COPY))
    figure.legend(
        handles=entries,
        loc="outside upper center",
        ncols=len(entries),
        frameon=False,
        fontsize=9,
        title="Memory traffic of the fused ops",
        title_fontsize=12,
    )
