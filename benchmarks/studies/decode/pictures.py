"""The time of a token with and without a cache, and the memory traffic of the cache."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ...present import figures
from ...present.figures import EndLabel
from .analysis import in_order, sweep, totals
from .point import DecodePoint

SOLID, DASHED, DOTTED, _ = figures.DASHES
LOOKS = {
    "paged": {"color": figures.VERMILION, "marker": "^", "linestyle": SOLID, "markersize": 5},
    "contiguous": {"color": figures.BLUE, "marker": "s", "linestyle": DASHED, "markersize": 8},
    "recompute": {"color": figures.BLACK, "marker": "o", "linestyle": SOLID, "markersize": 6},
}
OTHER = {"color": figures.PURPLE, "marker": "*", "linestyle": DOTTED, "markersize": 7}
HATCHES = {"paged": "", "contiguous": "///", "recompute": "..."}
BAR = 0.36
PANELS = {
    "batch": "sequences",
    "page_size": "tokens in a page",
    "group": "query heads on a key head",
    "kv_dtype": "stored as",
}
SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "fp8"}


def draw_cost(points: pd.DataFrame, laws: list[dict], path: Path, caption: str) -> None:
    figures.save(cost(points, laws, caption), path)


def draw_traffic(frame, base: DecodePoint, copy: float | None, path: Path, caption: str) -> None:
    figures.save(traffic(frame, base, copy, caption), path)


def cost(points: pd.DataFrame, laws: list[dict], caption: str):
    """Two log-log panels: the time of one token, and of a whole sequence."""
    figure, (one, all_) = plt.subplots(1, 2, figsize=(14.5, 5.4), layout="constrained")
    figures.entitle(figure, "Decoding with and without a cache", caption)
    measured = points[points.status == "ok"]
    exponents = {law["provider"]: law["exponent"] for law in laws}
    summed = [totals(curve) for _, curve in measured.groupby("provider", sort=False)]
    summed = pd.concat(summed) if summed else measured.assign(total_ms=[])
    _panel(one, measured, "time_ms", exponents, (1, 2))
    one.set_title("one token after n others", fontsize=11)
    _panel(all_, summed, "total_ms", {}, (2, 3))
    all_.set_title("n tokens, one after the other (sum of the left)", fontsize=11)
    return figure


def _panel(axes: Axes, points: pd.DataFrame, column: str, exponents: dict, powers) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    contexts = sorted(points.context.unique())
    labels = []
    for provider in reversed(in_order(points.provider.unique())):  # ours on top
        curve = points[points.provider == provider].sort_values("context")
        look = LOOKS.get(provider, OTHER)
        axes.plot(curve.context, curve[column], linewidth=1.8, **look)
        slope = exponents.get(provider)
        text = provider if slope is None else f"{provider}  $n^{{{slope:.2f}}}$"
        end = curve.iloc[-1]
        labels.append(EndLabel(end.context, end[column], text, look["color"]))
    if contexts:
        labels += figures.guides(axes, contexts, points[column].min(), powers)
        figures.length_axis(axes, contexts)
        figures.time_axis(axes)
    axes.set_xlabel("context n (tokens of each sequence)")
    figures.plain(axes, grid="y")
    figures.place(axes, labels)


def traffic(frame: pd.DataFrame, base: DecodePoint, copy: float | None, caption: str):
    """Bars of GB/s, one panel for each parameter that was varied, and a line for a copy."""
    figure, panels = plt.subplots(
        1, len(PANELS), figsize=(13.5, 4.2), sharey=True, layout="constrained"
    )
    measured = frame[(frame.status == "ok") & frame.gbytes_per_s.notna()]
    context = _swept_context(measured, base)
    shown = f"{caption}, {context:,} tokens of context"
    figures.entitle(figure, "Memory traffic of decoding", shown)
    panels[0].set_ylabel("GB/s")
    handles = {}
    for axes, (name, title) in zip(panels, PANELS.items(), strict=True):
        points = sweep(measured, base, name, context)
        if name == "page_size":
            points = points[points.page_size > 0]
        handles |= _bars(axes, points, name)
        axes.set_xlabel(title)
        if copy:
            handles["a copy"] = axes.axhline(copy, **figures.COPY)
        figures.plain(axes, grid="y")
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _swept_context(measured: pd.DataFrame, base: DecodePoint) -> int:
    """The context at which the other parameters were varied."""
    return int(measured.context.mode().max()) if len(measured) else base.context


def _bars(axes: Axes, points: pd.DataFrame, name: str) -> dict:
    """Draws the bars of each provider over the values of `name`; returns one bar of each."""
    values = list(dict.fromkeys(points.sort_values(name)[name]))
    handles = {}
    for at, value in enumerate(values):
        found = points[points[name] == value].set_index("provider").gbytes_per_s
        for i, provider in enumerate(providers := in_order(found.index)):
            handles[provider] = axes.bar(
                at + (i - (len(providers) - 1) / 2) * BAR,
                found[provider],
                BAR,
                color=LOOKS.get(provider, OTHER)["color"],
                hatch=HATCHES.get(provider, "x"),
                edgecolor="white",
            )
    axes.set_xlim(-0.6, max(1, len(values)) - 0.4)
    axes.xaxis.set_major_locator(FixedLocator(range(len(values))))
    axes.xaxis.set_major_formatter(FixedFormatter([SHORT.get(v, str(v)) for v in values]))
    axes.xaxis.set_minor_locator(NullLocator())
    return handles
