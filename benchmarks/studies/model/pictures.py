"""Tokens a second and peak memory against length, a panel a task; markers and dashes, not hues."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from ...present.figures import EndLabel, length_axis, place, save
from ...present.units import size
from ..scaling.analysis import FAILURES
from .analysis import in_order

# Okabe and Ito's palette.
LOOKS = {
    "fused": {"color": "#D55E00", "marker": "^", "linestyle": "-", "markersize": 6},
    "naive": {"color": "#000000", "marker": "o", "linestyle": "-", "markersize": 6},
    "sdpa": {"color": "#0072B2", "marker": "s", "linestyle": (0, (5, 2)), "markersize": 8},
}


@dataclass(frozen=True)
class ModelMetric:
    column: str
    title: str
    base: int
    steps: tuple[int, ...]  # of each power of the base
    shown: Callable[[float], str]


ROOM = 2.0
METRICS = {
    "speed": ModelMetric("rate", "Tokens a second", 10, (1, 2, 5), "{:,.4g}".format),
    "memory": ModelMetric("peak_memory_bytes", "Peak memory beyond weights", 2, (1,), size),
}


def draw_all(frame: pd.DataFrame, folder: Path, caption: str) -> list[Path]:
    """One picture for each metric, as png and svg; returns the paths of the latter."""
    return [
        save(draw(frame, metric, caption), folder / f"{name}.svg")
        for name, metric in METRICS.items()
    ]


def draw(frame: pd.DataFrame, metric: ModelMetric, caption: str):
    tasks = list(dict.fromkeys(frame.task))
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(6.6 * len(tasks), 4.6), squeeze=False, layout="constrained"
    )
    figure.suptitle(metric.title, fontsize=13)
    figure.supxlabel(caption, fontsize=9, color="#444444")
    for axes, task in zip(panels[0], tasks, strict=True):
        axes.set_title(task, fontsize=11)
        _panel(axes, frame[frame.task == task], metric)
    return figure


def _panel(axes: Axes, points: pd.DataFrame, metric: ModelMetric) -> None:
    column = metric.column
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    measured = points[(points.status == "ok") & (points[column] > 0)]
    labels = []
    for provider in reversed(in_order(measured.provider)):  # ours on top
        curve = measured[measured.provider == provider]
        axes.plot(curve.seq_len, curve[column], linewidth=1.8, **LOOKS[provider])
        end = curve.iloc[-1]
        labels.append(EndLabel(end.seq_len, end[column], provider, LOOKS[provider]["color"]))
    for p in points[points.status.isin(FAILURES)].itertuples():
        axes.plot(
            p.seq_len,
            0.97,
            "x",
            color=LOOKS[p.provider]["color"],
            markersize=9,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xlabel("sequence length n (tokens)")
    length_axis(axes, sorted(points.seq_len.unique()))
    if len(measured):
        _value_axis(axes, measured[column].min() / ROOM, measured[column].max() * ROOM, metric)
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    place(axes, labels)


def _value_axis(axes: Axes, low: float, high: float, metric: ModelMetric) -> None:
    powers = range(math.floor(math.log(low, metric.base)), math.ceil(math.log(high, metric.base)))
    ticks = [step * float(metric.base) ** power for power in powers for step in metric.steps]
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(lambda value, _: metric.shown(value))
    axes.yaxis.set_minor_locator(NullLocator())
