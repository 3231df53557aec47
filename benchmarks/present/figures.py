"""What the pictures of all studies share: palette, axes, guide lines, labels at the ends of curves.

Pictures survive grayscale: curves differ in markers and dashes, not in hue alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

# Okabe and Ito's palette, with wine for a ninth color.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, WINE = "#0072B2", "#D55E00", "#CC79A7", "#882255"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
COPY = {"color": "#777777", "linestyle": (0, (4, 3)), "linewidth": 1.2}
LABEL_POINTS = 9
LINE_SPACING = 1.35


@dataclass
class EndLabel:
    """Text in the right margin, at the height where a line ends."""

    x: float
    y: float
    text: str
    color: str


def save(figure, path: Path) -> Path:
    """Writes the picture as svg to `path` and as png beside it; returns the path."""
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    plt.close(figure)
    return path


def entitle(figure, title: str, caption: str) -> None:
    figure.suptitle(title, fontsize=13)
    figure.supxlabel(caption, fontsize=9, color="#444444")


def plain(axes: Axes, grid: str = "both") -> None:
    """A light grid behind the curves, and no frame above or to the right."""
    axes.grid(True, which="major", axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def guides(axes: Axes, lengths: list[int], lowest: float, powers=(1, 2)) -> list[EndLabel]:
    """Dashed lines n, n^2, ... from a common point below the curves."""
    labels = []
    start = lowest / 2
    for power in powers:
        values = [start * (n / lengths[0]) ** power for n in lengths]
        axes.plot(lengths, values, color="#888888", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        text = "$n$" if power == 1 else f"$n^{power}$"
        labels.append(EndLabel(lengths[-1], values[-1], text, "#666666"))
    return labels


def length_axis(axes: Axes, lengths: list[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    shown = [f"{n // 1024}k" if n % 1024 == 0 else str(n) for n in lengths]
    axes.xaxis.set_major_formatter(FixedFormatter(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(lengths[0] / 1.15, lengths[-1] * 1.08)


def value_axis(
    axes: Axes, base: int, show: Callable[[float], str], steps: tuple[int, ...] = (1,)
) -> None:
    """Ticks at `steps` of every power of the base that the axis reaches."""
    low, high = axes.get_ylim()
    powers = range(math.floor(math.log(low, base)), math.floor(math.log(high, base)) + 1)
    ticks = [step * float(base) ** power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([show(tick) for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def time_axis(axes: Axes) -> None:
    value_axis(axes, 10, lambda ms: f"{ms / 1e3:g} s" if ms >= 1e3 else f"{ms:g} ms")


def place(axes: Axes, labels: list[EndLabel]) -> None:
    """Writes the labels in the right margin, moved apart so that none overlaps another."""
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
