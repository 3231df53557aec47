"""Tokens per second and peak memory against length, one panel for each task."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from ...harness.point import FAILURES
from ...present import figures
from ...present.figures import EndLabel
from ...present.units import size
from .analysis import in_order

SOLID, DASHED, *_ = figures.DASHES
LOOKS = {
    "fused": {"color": figures.VERMILION, "marker": "^", "linestyle": SOLID, "markersize": 6},
    "naive": {"color": figures.BLACK, "marker": "o", "linestyle": SOLID, "markersize": 6},
    "sdpa": {"color": figures.BLUE, "marker": "s", "linestyle": DASHED, "markersize": 8},
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
        figures.save(draw(frame, metric, caption), folder / f"{name}.svg")
        for name, metric in METRICS.items()
    ]


def draw(frame: pd.DataFrame, metric: ModelMetric, caption: str):
    tasks = list(dict.fromkeys(frame.task))
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(6.6 * len(tasks), 4.6), squeeze=False, layout="constrained"
    )
    figures.entitle(figure, metric.title, caption)
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
    figures.length_axis(axes, sorted(points.seq_len.unique()))
    if len(measured):
        axes.set_ylim(measured[column].min() / ROOM, measured[column].max() * ROOM)
        figures.value_axis(axes, metric.base, metric.shown, metric.steps)
    figures.plain(axes)
    figures.place(axes, labels)
