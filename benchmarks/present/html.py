"""report.html: a page that holds all it shows and loads nothing."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

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


def write(folder: Path, title: str, body: str, provenance: dict) -> Path:
    """Writes report.html: `body` between a title and where its numbers come from."""
    path = folder / "report.html"
    path.write_text(_page(title, body, provenance), encoding="utf-8")
    return path


def picture(path: Path, alt: str) -> str:
    """An svg, in the page itself."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def items(lines: list[str]) -> str:
    """The entries of a list."""
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def table(head: Sequence[str], lines: list[list[str]], text_columns: int) -> str:
    """A table whose first `text_columns` columns are aligned left."""

    def row(cells, tag):
        shown = (
            f'<{tag} class="text">{cell}</{tag}>' if i < text_columns else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(row(cells, "td") for cells in lines)
    return f'<div class="scroll"><table>{row(head, "th")}{body}</table></div>'


def failed(start: list[str], point, length: int) -> list[str]:
    """A line of `length` cells for a point that failed; its status shows the reason on hovering."""
    status = f'<span class="failed" title="{escape(point.reason)}">{point.status}</span>'
    return [*start, status, *[""] * (length - len(start) - 1)]


def escaped(cells: list[str]) -> list[str]:
    return [escape(cell) for cell in cells]


def conventions(provenance: dict) -> dict[str, str]:
    """What the columns of a study mean, as HTML."""
    return {name: escape(text) for name, text in provenance["conventions"].items()}


def _page(title: str, body: str, provenance: dict) -> str:
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


def _provenance(provenance: dict) -> str:
    entries = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        for name, value in _flat(provenance)
        if name != "command"
    )
    return f"<dl>{entries}</dl>"


def _flat(content: dict, prefix: str = "") -> list[tuple[str, str]]:
    flat = []
    for name, value in content.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            flat += _flat(value, prefix=f"{label}: ")
        else:
            flat.append((label, value if isinstance(value, str) else json.dumps(value)))
    return flat
