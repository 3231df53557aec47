"""report.html of a run of decoding."""

from pathlib import Path

import pandas as pd

from ...present import html
from ...present.tables import EXPONENT_HEAD, exponent_cells
from .analysis import headlines
from .tables import HEAD, cells, footnotes

PICTURES = {
    "cost": "cost of a token, and of all tokens, against the context",
    "traffic": "memory traffic against batch, page size, group and stored dtype",
}


def write(folder: Path, frame: pd.DataFrame, laws: list[dict], provenance: dict) -> Path:
    told = html.conventions(provenance)
    images = "".join(html.picture(folder / f"{name}.svg", alt) for name, alt in PICTURES.items())
    exponents = [html.escaped([law["provider"], *exponent_cells(law)]) for law in laws]
    measured = [html.escaped(cells(p)) for p in frame.itertuples()]
    body = f"""<ul>{html.items(headlines(frame))}</ul>
<div class="pictures wide">{images}</div>
<h2>How the cost of a token grows with the context</h2>
{html.table(["provider", *EXPONENT_HEAD], exponents, text_columns=1)}
<h2>Measurements</h2>
<p><small>Time is that of {told["time"]}. Step is {told["step"]}. GB/s count {told["gbytes_per_s"]};
the share is of a copy measured in the same run. Over contiguous is {told["speedup"]}. Recompute
is {told["recompute"]}. Error is {told["max_error_ratio"]}.</small></p>
{html.table(HEAD, measured, text_columns=1)}
<ul>{html.items(footnotes(frame))}</ul>"""
    return html.write(folder, "Decoding", body, provenance)
