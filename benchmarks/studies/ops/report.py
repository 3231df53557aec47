"""report.html of a run of the ops."""

from html import escape
from pathlib import Path

import pandas as pd

from ...present import html
from ...present.units import milliseconds, or_blank, size
from .analysis import SLOWEST, headlines, worst_cases
from .tables import WORST_HEAD, footnotes, worst_cells

HEAD = (
    *("op", "provider", "mode", "rows", "hidden", "time", "20 to 80 %", "repeats", "speed-up"),
    *("GB/s", "of a copy", "TFLOP/s", "peak memory", "saving", "error"),
)


def write(folder: Path, frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> Path:
    told = html.conventions(provenance)
    images = "".join(html.picture(p, "traffic of every op against hidden size") for p in drawn)
    worst = [html.escaped(worst_cells(p)) for p in worst_cases(frame).itertuples()]
    body = f"""<ul>{html.items(headlines(frame))}</ul>
<div class="pictures wide">{images}</div>
<h2>Worst cases beside torch eager</h2>
<p><small>No op may take more than {SLOWEST} times as long. The speed-up is
{told["speedup"]}.</small></p>
{html.table(WORST_HEAD, worst, text_columns=2)}
<h2>Measurements</h2>
<p><small>GB/s count {told["gbytes_per_s"]}; the share is of a copy measured in the same run.
Memory saving is relative to torch eager. Error is {told["max_error_ratio"]}.</small></p>
{html.table(HEAD, [_cells(p) for p in frame.itertuples()], text_columns=3)}
<ul>{html.items(footnotes(frame))}</ul>"""
    return html.write(folder, "Fused ops", body, provenance)


def _cells(p) -> list[str]:
    start = [escape(p.op), escape(p.provider), p.mode, f"{p.rows:,}", f"{p.hidden:,}"]
    if p.status != "ok":
        return html.failed(start, p, len(HEAD))
    return [
        *start,
        milliseconds(p.time_ms),
        f"{milliseconds(p.time_ms_p20)} to {milliseconds(p.time_ms_p80)}",
        f"{p.repeats:.0f}",
        or_blank(p.speedup, "{:.3g}x"),
        f"{p.gbytes_per_s:.3g}",
        or_blank(p.copy_share, "{:.0%}"),
        f"{p.tflops:.3g}",
        size(p.peak_memory_bytes),
        or_blank(p.memory_saving, "{:.3g}x"),
        or_blank(p.max_error_ratio, "{:.2f}"),
    ]
