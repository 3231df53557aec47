"""Log-log pictures of time and memory that survive grayscale: markers and dashes, not only hues."""

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ..harness.point import ITEM_BYTES
from ..studies.scaling import theory
from ..studies.scaling.analysis import FAILURES, curve_label
from .units import size

# Okabe and Ito's palette, ordered by lightness so that neighbors differ in gray too.
COLORS = {
    "naive": "#000000",
    "sdpa": "#0072B2",
    "fused": "#D55E00",
    "flex": "#009E73",
    "sdpa:math": "#56B4E9",
    "sdpa:flash": "#882255",
    "sdpa:efficient": "#CC79A7",
    "sdpa:cudnn": "#E69F00",
}
MARKERS = {
    "naive": "o",
    "sdpa": "s",
    "fused": "^",
    "flex": "D",
    "sdpa:math": "v",
    "sdpa:flash": "<",
    "sdpa:efficient": "P",
    "sdpa:cudnn": "X",
}
OTHER = ("#666633", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
GUIDE = "#888888"
LABEL_POINTS = 9
LINE_SPACING = 1.35
FAILURE_ROW = 0.055


@dataclass(frozen=True)
class ScalingMetric:
    column: str
    title: str
    ticks: object


@dataclass
class EndLabel:
    """Text in the right margin, at the height where a line ends."""

    x: float
    y: float
    text: str
    color: str


def save(figure, path: Path) -> Path:
    """Writes a picture as svg, to ``path``, and as png beside it; returns the path."""
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    plt.close(figure)
    return path


def draw_all(frame: pd.DataFrame, fitted: list[dict], folder: Path, caption: str) -> None:
    for name, metric in METRICS.items():
        figure = draw(frame, fitted, name, metric, caption)
        save(figure, folder / f"{name}.svg")


def draw(frame: pd.DataFrame, fitted: list[dict], name: str, metric: ScalingMetric, caption: str):
    modes = sorted(frame["mode"].unique())
    figure, panels = plt.subplots(
        1, len(modes), figsize=(8.2 * len(modes), 5.6), squeeze=False, layout="constrained"
    )
    figure.suptitle(metric.title, fontsize=13)
    figure.supxlabel(caption, fontsize=9, color="#444444")
    for axes, mode in zip(panels[0], modes, strict=True):
        laws = [law for law in fitted if law["mode"] == mode and law["metric"] == name]
        _panel(axes, frame[frame["mode"] == mode], laws, name, metric)
        if len(modes) > 1:
            axes.set_title(mode, fontsize=11)
    return figure


def _panel(
    axes: Axes, points: pd.DataFrame, laws: list[dict], name: str, metric: ScalingMetric
) -> None:
    lengths = sorted(points.seq_len.unique())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    measured = points[(points.status == "ok") & (points[metric.column] > 0)]
    labels = _curves(axes, measured, laws, metric.column)
    if len(measured):
        labels += _guides(axes, lengths, measured[metric.column].min())
        if name == "memory":
            labels.append(_theory(axes, lengths, points.iloc[0]))
    axes.set_xlabel("sequence length n (tokens)")
    length_axis(axes, lengths)
    _failures(axes, points)
    metric.ticks(axes)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    place(axes, labels)


def _curves(axes: Axes, measured, laws, column) -> list[EndLabel]:
    exponents = {(law["provider"], law["variant"]): law for law in laws}
    variants = list(dict.fromkeys(sorted(measured.variant.unique(), key=lambda v: v != "full")))
    labels = []
    for (provider, variant), curve in measured.groupby(["provider", "variant"], sort=False):
        color = COLORS.get(provider, OTHER[0])
        axes.plot(
            curve.seq_len,
            curve[column],
            color=color,
            marker=MARKERS.get(provider, OTHER[1]),
            markerfacecolor=color if variant == variants[0] else "white",
            linestyle=DASHES[variants.index(variant) % len(DASHES)],
            markersize=6,
            linewidth=1.8,
        )
        law = exponents.get((provider, variant))
        slope = "" if law is None or law["exponent"] is None else f"  $n^{{{law['exponent']:.2f}}}$"
        end = curve.loc[curve.seq_len.idxmax()]
        text = curve_label(provider, variant) + slope
        labels.append(EndLabel(end.seq_len, end[column], text, color))
    return labels


def _guides(axes: Axes, lengths: list[int], lowest: float) -> list[EndLabel]:
    """Dashed lines of slope one and two from a common point below the curves."""
    labels = []
    start = lowest / 2
    for power, text in ((1, "$n$"), (2, "$n^2$")):
        values = [start * (n / lengths[0]) ** power for n in lengths]
        axes.plot(lengths, values, color=GUIDE, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
        labels.append(EndLabel(lengths[-1], values[-1], text, "#666666"))
    return labels


def _theory(axes: Axes, lengths: list[int], point) -> EndLabel:
    heads, width = point["batch"] * point["heads"], ITEM_BYTES[point["dtype"]]
    values = [theory.score_matrices_bytes(n, heads, width) for n in lengths]
    axes.plot(lengths, values, color="#555555", linestyle=(0, (1, 1)), linewidth=1.4, zorder=1)
    return EndLabel(lengths[-1], values[-1], "textbook: 2 matrices $n × n$", "#555555")


def _failures(axes: Axes, points: pd.DataFrame) -> None:
    """One row of crosses a curve, above everything that was measured."""
    failed = points[points.status.isin(FAILURES)]
    curves = list(failed.groupby(["provider", "variant"], sort=False))
    low, high = (math.log10(y) for y in axes.get_ylim())
    room = FAILURE_ROW * (len(curves) + 1) if curves else 0
    axes.set_ylim(10**low, 10 ** (low + (high - low) / (1 - room)))
    for row, ((provider, variant), curve) in enumerate(curves):
        height = 1 - FAILURE_ROW * (row + 0.7)
        color = COLORS.get(provider, OTHER[0])
        where = axes.get_xaxis_transform()
        axes.plot(
            curve.seq_len,
            [height] * len(curve),
            transform=where,
            color=color,
            marker="x",
            markersize=8,
            markeredgewidth=2,
            linestyle="",
        )
        kinds = {"oom": "out of memory", "timeout": "timed out", "error": "failed"}
        what = " / ".join(kinds[status] for status in dict.fromkeys(curve.status))
        axes.annotate(
            f"{curve_label(provider, variant)}: {what}",
            (curve.seq_len.min(), height),
            xycoords=where,
            xytext=(-10, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=LABEL_POINTS,
            color=color,
        )


def length_axis(axes: Axes, lengths: list[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    shown = [f"{n // 1024}k" if n % 1024 == 0 else str(n) for n in lengths]
    axes.xaxis.set_major_formatter(FixedFormatter(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(lengths[0] / 1.15, lengths[-1] * 1.08)


def _value_axis(axes: Axes, base: int, show) -> None:
    low, high = axes.get_ylim()
    powers = range(math.ceil(math.log(low, base)), math.floor(math.log(high, base)) + 1)
    ticks = [float(base) ** power for power in powers]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([show(tick) for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def time_axis(axes: Axes) -> None:
    _value_axis(axes, 10, lambda ms: f"{ms / 1e3:g} s" if ms >= 1e3 else f"{ms:g} ms")


def _memory_axis(axes: Axes) -> None:
    low, high = axes.get_ylim()
    _value_axis(axes, 4 if high / low < 4**9 else 16, size)


def place(axes: Axes, labels: list[EndLabel]) -> None:
    """Writes the labels in the right margin, pushed apart until none overlaps another."""
    figure = axes.figure
    figure.canvas.draw()
    to_axes = axes.transData + axes.transAxes.inverted()
    height = axes.get_window_extent().height
    gap = LABEL_POINTS * LINE_SPACING * figure.dpi / 72 / height
    labels = sorted(labels, key=lambda label: label.y)
    ends = [to_axes.transform((label.x, label.y)) for label in labels]
    for label, end, slot in zip(labels, ends, spread([y for _, y in ends], gap), strict=True):
        axes.annotate(
            label.text,
            xy=end,
            xycoords="axes fraction",
            xytext=(1.05, slot),
            textcoords="axes fraction",
            va="center",
            fontsize=LABEL_POINTS,
            color=label.color,
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": label.color,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 2,
                "shrinkB": 4,
            },
        )


def spread(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed to lie at least gap apart.

    Crowded neighbors form a block that is centered on its members' mean.
    """
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _top(blocks[-2], gap) + gap > _bottom(blocks[-1], gap):
            last = blocks.pop()
            blocks[-1] += last
    return [_bottom(block, gap) + i * gap for block in blocks for i in range(len(block))]


def _bottom(block: list[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: list[float], gap: float) -> float:
    return _bottom(block, gap) + gap * (len(block) - 1)


METRICS = {
    "time": ScalingMetric("time_ms", "Time of one attention call", time_axis),
    "memory": ScalingMetric("peak_memory_bytes", "Peak memory of one attention call", _memory_axis),
}
