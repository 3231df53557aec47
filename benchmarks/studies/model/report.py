"""report.html of a run of whole models."""

from pathlib import Path

import pandas as pd

from ...present import html
from .analysis import footnotes, headlines
from .tables import HEAD, cells


def write(folder: Path, frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> Path:
    told = html.conventions(provenance)
    images = "".join(html.picture(path, f"{path.stem} against sequence length") for path in drawn)
    measured = [html.escaped([p.task, *cells(p)]) for p in frame.itertuples()]
    body = f"""<ul>{html.items(headlines(frame))}</ul>
<div class="pictures wide">{images}</div>
<h2>Measurements</h2>
<p><small>train: {told["train"]}. generate: {told["generate"]}. Memory is {told["memory"]}. Over
naive: {told["speedup"]}. The loss is that of the first step at this length, from equal
weights.</small></p>
{html.table(["task", *HEAD], measured, text_columns=2)}
<ul>{html.items(footnotes(frame))}</ul>"""
    return html.write(folder, "A whole model", body, provenance)
