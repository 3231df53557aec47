"""report.html: everything a run found, in one file that loads nothing from anywhere."""

import base64
import json
from html import escape
from pathlib import Path

import pandas as pd

from ..studies.scaling.analysis import curve_label, frontier, headlines
from ..studies.scaling.tables import fitted_over, footnotes
from .units import milliseconds, size

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 84rem; margin: 2rem auto;
       padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.lead { color: #555; margin-top: .2rem; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.pictures.wide { grid-template-columns: 1fr; }
img { width: 100%; border: 1px solid #ddd; border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; white-space: nowrap; text-align: right;
         border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 2px solid #bbb; } td.text, th.text { text-align: left; }
tr:hover td { background: #f6f6f6; } .failed { color: #b03000; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: 14rem 1fr; gap: .2rem 1rem; }
dt { color: #555; } dd { margin: 0; } small { color: #666; }
pre { background: #f4f4f4; padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }
"""


def write(folder: Path, frame: pd.DataFrame, fitted: list[dict], provenance: dict) -> Path:
    path = folder / "report.html"
    path.write_text(render(folder, frame, fitted, provenance), encoding="utf-8")
    return path


def render(folder: Path, frame: pd.DataFrame, fitted: list[dict], provenance: dict) -> str:
    pictures = "".join(
        picture(folder / f"{name}.svg", f"{name} against sequence length")
        for name in ("time", "memory")
    )
    wide = " wide" if frame["mode"].nunique() > 1 else ""
    found = "".join(f"<li>{escape(line)}</li>" for line in headlines(frame))
    notes = "".join(f"<li>{escape(note)}</li>" for note in footnotes(frame))
    body = f"""<ul>{found}</ul>
<div class="pictures{wide}">{pictures}</div>
<h2>Exponents</h2>
{_exponents(fitted)}
<p><small>cost ~ n<sup>e</sup>, {escape(provenance["conventions"]["exponents"])}</small></p>
<h2>How far each goes</h2>
{_frontier(frame)}
<h2>Measurements</h2>
<p><small>Speed-up, memory saving and error are relative to naive attention; error is
{escape(provenance["conventions"]["max_error_ratio"])}. TFLOP/s count
{escape(provenance["conventions"]["tflops"])}.</small></p>
{_measurements(frame)}
<ul>{notes}</ul>"""
    return page("How attention scales", body, provenance)


def page(title: str, body: str, provenance: dict) -> str:
    """The whole of a report: `body` between a title and where its numbers come from."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title} on {escape(provenance["device_name"])}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{escape(provenance["device_name"])}, {escape(provenance["started"])}</p>
{body}
<h2>Reproduce</h2>
<pre>{escape(provenance["command"])}</pre>
<h2>Where the numbers come from</h2>
{_provenance(provenance)}
</body>
</html>
"""


def picture(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def items(lines: list[str]) -> str:
    """The entries of a list."""
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def table(head: list[str], lines: list[list[str]], text_columns: int) -> str:
    def row(cells, tag):
        shown = (
            f'<{tag} class="text">{cell}</{tag}>' if i < text_columns else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(row(cells, "td") for cells in lines)
    return f'<div class="scroll"><table>{row(head, "th")}{body}</table></div>'


def _measurements(frame: pd.DataFrame) -> str:
    head = ["curve", "mode", "n", "time", "20 to 80 %", "repeats", "speed-up", "TFLOP/s"]
    head += ["peak memory", "saving", "error"]
    lines = []
    for p in frame.sort_values(["mode", "seq_len", "time_ms"]).itertuples():
        start = [escape(curve_label(p.provider, p.variant)), p.mode, f"{p.seq_len:,}"]
        if p.status != "ok":
            reason = escape(p.reason)
            lines.append([*start, f'<span class="failed" title="{reason}">{p.status}</span>'])
            lines[-1] += [""] * (len(head) - len(lines[-1]))
            continue
        lines.append(
            [
                *start,
                milliseconds(p.time_ms),
                f"{milliseconds(p.time_ms_p20)} to {milliseconds(p.time_ms_p80)}",
                f"{p.repeats:.0f}",
                times(p.speedup_over_naive),
                f"{p.tflops:.3g}",
                size(p.peak_memory_bytes),
                times(p.memory_saving_over_naive),
                "" if pd.isna(p.max_error_ratio) else f"{p.max_error_ratio:.2f}",
            ]
        )
    return table(head, lines, text_columns=2)


def times(ratio: float) -> str:
    return "" if pd.isna(ratio) else f"{ratio:.3g}x"


def _exponents(fitted: list[dict]) -> str:
    head = ["curve", "mode", "metric", "exponent", "95 % interval", "fitted over"]
    lines = []
    for law in fitted:
        known = law["exponent"] is not None
        lines.append(
            [
                escape(curve_label(law["provider"], law["variant"])),
                law["mode"],
                law["metric"],
                f"{law['exponent']:.2f}" if known else "-",
                f"{law['ci_low']:.2f} to {law['ci_high']:.2f}" if known else "",
                fitted_over(law),
            ]
        )
    return table(head, lines, text_columns=3)


def _frontier(frame: pd.DataFrame) -> str:
    lines = [
        [
            escape(curve_label(line.provider, line.variant)),
            line.mode,
            "none" if pd.isna(line.longest_ok) else f"{line.longest_ok:,}",
            "" if pd.isna(line.first_failed) else f"{line.first_failed:,} ({line.failure})",
        ]
        for line in frontier(frame).itertuples()
    ]
    return table(["curve", "mode", "longest that ran", "first that did not"], lines, 2)


def _provenance(provenance: dict) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in _flat(provenance)
        if name != "command"
    )
    return f"<dl>{items}</dl>"


def _flat(content: dict, prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for name, value in content.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            flat += _flat(value, prefix=f"{label}: ")
        else:
            flat.append((label, value if isinstance(value, str) else json.dumps(value)))
    return flat
