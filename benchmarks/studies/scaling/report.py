"""report.html of a run of scaling."""

from html import escape
from pathlib import Path

import pandas as pd

from ...present import html
from ...present.tables import EXPONENT_HEAD, exponent_cells
from ...present.units import milliseconds, or_blank, size
from .analysis import curve_label, headlines
from .tables import FRONTIER_HEAD, footnotes, frontier_cells

HEAD = (
    *("curve", "mode", "n", "time", "20 to 80 %", "repeats", "speed-up", "TFLOP/s"),
    *("peak memory", "saving", "error"),
)


def write(folder: Path, frame: pd.DataFrame, fitted: list[dict], provenance: dict) -> Path:
    told = html.conventions(provenance)
    images = "".join(
        html.picture(folder / f"{name}.svg", f"{name} against sequence length")
        for name in ("time", "memory")
    )
    wide = " wide" if frame["mode"].nunique() > 1 else ""
    exponents = [_exponent_cells(law) for law in fitted]
    measured = frame.sort_values(["mode", "seq_len", "time_ms"]).itertuples()
    body = f"""<ul>{html.items(headlines(frame))}</ul>
<div class="pictures{wide}">{images}</div>
<h2>Exponents</h2>
{html.table(["curve", "mode", "metric", *EXPONENT_HEAD], exponents, text_columns=3)}
<p><small>cost ~ n<sup>e</sup>, {told["exponents"]}</small></p>
<h2>How far each goes</h2>
{html.table(FRONTIER_HEAD, [html.escaped(c) for c in frontier_cells(frame)], text_columns=2)}
<h2>Measurements</h2>
<p><small>Speed-up, memory saving and error are relative to naive attention; error is
{told["max_error_ratio"]}. TFLOP/s count {told["tflops"]}.</small></p>
{html.table(HEAD, [_cells(p) for p in measured], text_columns=2)}
<ul>{html.items(footnotes(frame))}</ul>"""
    return html.write(folder, "How attention scales", body, provenance)


def _exponent_cells(law: dict) -> list[str]:
    label = curve_label(law["provider"], law["variant"])
    return html.escaped([label, law["mode"], law["metric"], *exponent_cells(law)])


def _cells(p) -> list[str]:
    start = [escape(curve_label(p.provider, p.variant)), p.mode, f"{p.seq_len:,}"]
    if p.status != "ok":
        return html.failed(start, p, len(HEAD))
    return [
        *start,
        milliseconds(p.time_ms),
        f"{milliseconds(p.time_ms_p20)} to {milliseconds(p.time_ms_p80)}",
        f"{p.repeats:.0f}",
        or_blank(p.speedup_over_naive, "{:.3g}x"),
        f"{p.tflops:.3g}",
        size(p.peak_memory_bytes),
        or_blank(p.memory_saving_over_naive, "{:.3g}x"),
        or_blank(p.max_error_ratio, "{:.2f}"),
    ]
