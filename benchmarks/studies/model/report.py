"""report.html of a run over the models."""

from html import escape
from pathlib import Path

import pandas as pd

from ...present import html as report
from .analysis import footnotes, headlines
from .tables import HEAD, cells


def write(folder: Path, frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> Path:
    path = folder / "report.html"
    path.write_text(render(frame, drawn, provenance), encoding="utf-8")
    return path


def render(frame: pd.DataFrame, drawn: list[Path], provenance: dict) -> str:
    conventions = {name: escape(text) for name, text in provenance["conventions"].items()}
    images = (report.picture(path, f"{path.stem} against sequence length") for path in drawn)
    lines = [[p.task, *map(escape, cells(p))] for p in frame.itertuples()]
    body = f"""<ul>{report.items(headlines(frame))}</ul>
<div class="pictures wide">{"".join(images)}</div>
<h2>Measurements</h2>
<p><small>train: {conventions["train"]}. generate: {conventions["generate"]}. Memory is
{conventions["memory"]}. Over naive: {conventions["speedup"]}. The loss is that of the first step
at this length, from equal weights.</small></p>
{report.table(["task", *HEAD], lines, text_columns=2)}
<ul>{report.items(footnotes(frame))}</ul>"""
    return report.page("A whole model", body, provenance)
