"""report.html of a run of decoding."""

from html import escape
from pathlib import Path

import pandas as pd

from ...present import html as report
from .analysis import headlines
from .tables import HEAD, cells, footnotes, law_cells

PICTURES = {
    "cost": "cost of a token, and of all tokens, against the context",
    "traffic": "memory traffic against batch, page size, group and stored dtype",
}


def write(folder: Path, frame: pd.DataFrame, laws: list[dict], provenance: dict) -> Path:
    path = folder / "report.html"
    path.write_text(render(folder, frame, laws, provenance), encoding="utf-8")
    return path


def render(folder: Path, frame: pd.DataFrame, laws: list[dict], provenance: dict) -> str:
    told = {name: escape(text) for name, text in provenance["conventions"].items()}
    images = "".join(report.picture(folder / f"{name}.svg", alt) for name, alt in PICTURES.items())
    head = ["provider", "exponent", "95 % interval", "fitted over"]
    body = f"""<ul>{report.items(headlines(frame))}</ul>
<div class="pictures wide">{images}</div>
<h2>How the cost of a token grows with the context</h2>
{report.table(head, [_escaped(law_cells(law)) for law in laws], text_columns=1)}
<h2>Measurements</h2>
<p><small>Time is that of {told["time"]}. Step is {told["step"]}. GB/s count {told["gbytes_per_s"]};
the share is of a copy measured in the same run. Over contiguous is {told["speedup"]}. Recompute
is {told["recompute"]}. Error is {told["max_error_ratio"]}.</small></p>
{report.table(list(HEAD), [_escaped(cells(p)) for p in frame.itertuples()], text_columns=1)}
<ul>{report.items(footnotes(frame))}</ul>"""
    return report.page("Decoding", body, provenance)


def _escaped(line: list[str]) -> list[str]:
    return [escape(cell) for cell in line]
