"""report.html of a run over the ops."""

from html import escape
from pathlib import Path

import pandas as pd

from ...present import html as report
from ...present.units import milliseconds, size
from .analysis import SLOWEST, headlines, worst_cases
from .tables import footnotes


def write(folder: Path, frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> Path:
    path = folder / "report.html"
    path.write_text(render(frame, drawn, provenance), encoding="utf-8")
    return path


def render(frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> str:
    conventions = {name: escape(text) for name, text in provenance["conventions"].items()}
    images = (report.picture(path, "traffic of every op against hidden size") for path in drawn)
    body = f"""<ul>{report.items(headlines(frame))}</ul>
<div class="pictures wide">{"".join(images)}</div>
<h2>Worst cases beside torch eager</h2>
<p><small>No op may take more than {SLOWEST} times as long. The speed-up is
{conventions["speedup"]}.</small></p>
{_worst(frame)}
<h2>Measurements</h2>
<p><small>GB/s count {conventions["gbytes_per_s"]}; the share is of a copy measured in the same run.
Memory saving is relative to torch eager. Error is {conventions["max_error_ratio"]}.</small></p>
{_measurements(frame)}
<ul>{report.items(footnotes(frame))}</ul>"""
    return report.page("Fused ops", body, provenance)


def _worst(frame: pd.DataFrame) -> str:
    head = ["op", "mode", "rows", "hidden", "torch", "fused", "speed-up", "95 % interval", "bar"]
    lines = [
        [
            *(escape(p.op), p.mode, f"{p.rows:,}", f"{p.hidden:,}"),
            *(milliseconds(p.torch_ms), milliseconds(p.time_ms), f"{p.speedup:.3g}x"),
            *(f"{p.speedup_low:.3g} to {p.speedup_high:.3g}", p.verdict),
        ]
        for p in worst_cases(frame).itertuples()
    ]
    return report.table(head, lines, text_columns=2)


def _measurements(frame: pd.DataFrame) -> str:
    head = ["op", "provider", "mode", "rows", "hidden", "time", "20 to 80 %", "repeats"]
    head += ["speed-up", "GB/s", "of a copy", "TFLOP/s", "peak memory", "saving", "error"]
    lines = []
    for p in frame.itertuples():
        start = [escape(p.op), escape(p.provider), p.mode, f"{p.rows:,}", f"{p.hidden:,}"]
        if p.status != "ok":
            failed = f'<span class="failed" title="{escape(p.reason)}">{p.status}</span>'
            lines.append([*start, failed, *[""] * (len(head) - len(start) - 1)])
            continue
        lines.append(
            [
                *start,
                milliseconds(p.time_ms),
                f"{milliseconds(p.time_ms_p20)} to {milliseconds(p.time_ms_p80)}",
                f"{p.repeats:.0f}",
                report.times(p.speedup),
                f"{p.gbytes_per_s:.3g}",
                "" if pd.isna(p.copy_share) else f"{p.copy_share:.0%}",
                f"{p.tflops:.3g}",
                size(p.peak_memory_bytes),
                report.times(p.memory_saving),
                "" if pd.isna(p.max_error_ratio) else f"{p.max_error_ratio:.2f}",
            ]
        )
    return report.table(head, lines, text_columns=3)
