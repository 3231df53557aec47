"""Log-log pictures of time and memory against sequence length."""

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes

from ...harness.point import FAILURES
from ...present import figures
from ...present.figures import EndLabel
from ...present.units import size
from . import theory
from .analysis import curve_label

LOOKS = {
    "naive": (figures.BLACK, "o"),
    "sdpa": (figures.BLUE, "s"),
    "fused": (figures.VERMILION, "^"),
    "flex": (figures.GREEN, "D"),
    "sdpa:math": (figures.SKY, "v"),
    "sdpa:flash": (figures.WINE, "<"),
    "sdpa:efficient": (figures.PURPLE, "P"),
    "sdpa:cudnn": (figures.ORANGE, "X"),
}
OTHER = ("#666633", "*")
FAILURE_ROW = 0.055


@dataclass(frozen=True)
class ScalingMetric:
    column: str
    title: str
    ticks: object


def draw_all(frame: pd.DataFrame, fitted: list[dict], folder: Path, caption: str) -> None:
    for name, metric in METRICS.items():
        figure = draw(frame, fitted, name, metric, caption)
        figures.save(figure, folder / f"{name}.svg")


def draw(frame: pd.DataFrame, fitted: list[dict], name: str, metric: ScalingMetric, caption: str):
    modes = sorted(frame["mode"].unique())
    figure, panels = plt.subplots(
        1, len(modes), figsize=(8.2 * len(modes), 5.6), squeeze=False, layout="constrained"
    )
    figures.entitle(figure, metric.title, caption)
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
        labels += figures.guides(axes, lengths, measured[metric.column].min())
        if name == "memory":
            labels.append(_theory(axes, lengths, points.iloc[0]))
    axes.set_xlabel("sequence length n (tokens)")
    figures.length_axis(axes, lengths)
    _failures(axes, points)
    metric.ticks(axes)
    figures.plain(axes)
    figures.place(axes, labels)


def _curves(axes: Axes, measured, laws, column) -> list[EndLabel]:
    exponents = {(law["provider"], law["variant"]): law for law in laws}
    variants = list(dict.fromkeys(sorted(measured.variant.unique(), key=lambda v: v != "full")))
    labels = []
    for (provider, variant), curve in measured.groupby(["provider", "variant"], sort=False):
        color, marker = LOOKS.get(provider, OTHER)
        axes.plot(
            curve.seq_len,
            curve[column],
            color=color,
            marker=marker,
            markerfacecolor=color if variant == variants[0] else "white",
            linestyle=figures.DASHES[variants.index(variant) % len(figures.DASHES)],
            markersize=6,
            linewidth=1.8,
        )
        law = exponents.get((provider, variant))
        slope = "" if law is None or law["exponent"] is None else f"  $n^{{{law['exponent']:.2f}}}$"
        end = curve.loc[curve.seq_len.idxmax()]
        text = curve_label(provider, variant) + slope
        labels.append(EndLabel(end.seq_len, end[column], text, color))
    return labels


def _theory(axes: Axes, lengths: list[int], point) -> EndLabel:
    heads, width = point["batch"] * point["heads"], getattr(torch, point["dtype"]).itemsize
    values = [theory.score_matrices_bytes(n, heads, width) for n in lengths]
    axes.plot(lengths, values, color="#555555", linestyle=(0, (1, 1)), linewidth=1.4, zorder=1)
    return EndLabel(lengths[-1], values[-1], "textbook: 2 matrices $n × n$", "#555555")


def _failures(axes: Axes, points: pd.DataFrame) -> None:
    """One row of crosses for each curve with failures, above everything that was measured."""
    failed = points[points.status.isin(FAILURES)]
    curves = list(failed.groupby(["provider", "variant"], sort=False))
    low, high = (math.log10(y) for y in axes.get_ylim())
    room = FAILURE_ROW * (len(curves) + 1) if curves else 0
    axes.set_ylim(10**low, 10 ** (low + (high - low) / (1 - room)))
    for row, ((provider, variant), curve) in enumerate(curves):
        height = 1 - FAILURE_ROW * (row + 0.7)
        color, _ = LOOKS.get(provider, OTHER)
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
            fontsize=figures.LABEL_POINTS,
            color=color,
        )


def _memory_axis(axes: Axes) -> None:
    low, high = axes.get_ylim()
    figures.value_axis(axes, 4 if high / low < 4**9 else 16, size)


METRICS = {
    "time": ScalingMetric("time_ms", "Time of one attention call", figures.time_axis),
    "memory": ScalingMetric("peak_memory_bytes", "Peak memory of one attention call", _memory_axis),
}
