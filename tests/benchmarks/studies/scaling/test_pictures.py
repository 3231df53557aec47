"""Plots and report: everything is there, nothing overlaps, nothing is loaded."""

import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Annotation

from benchmarks.present import figures as plots
from benchmarks.present import fits
from benchmarks.present import html as report
from benchmarks.studies.scaling import analysis

from ...points import row

NS = (256, 512, 1024, 2048, 4096)
PROVENANCE = {
    "device_name": "A <processor> & more",
    "started": "2026-01-02T03:04:05+00:00",
    "command": "python -m benchmarks scaling --variants 'a<b'",
    "conventions": {"exponents": fits.TAIL, "max_error_ratio": "x", "tflops": "y"},
    "gpu": None,
}


def example_rows():
    """Crowded on purpose: curves that nearly coincide, failures, two modes."""
    rows = []
    for mode, factor in (("forward", 1.0), ("forward+backward", 3.0)):
        for n in NS:
            grown = {"time_ms": factor * n**2 / 1e5, "peak_memory_bytes": int(factor * n**2 * 64)}
            failed = {"status": "oom", "reason": "too much"} if n == 4096 else {}
            rows.append(row("naive", seq_len=n, mode=mode, **grown, **failed))
            for i, provider in enumerate(("sdpa", "fused", "flex", "sdpa:math", "sdpa:flash")):
                close = 1 + i / 100
                grown = {"time_ms": close * factor * n / 1e3, "peak_memory_bytes": int(2048 * n)}
                failed = {"status": "timeout"} if (provider, n) == ("flex", 4096) else {}
                rows.append(row(provider, seq_len=n, mode=mode, **grown, **failed))
            rows.append(row("fused", "sliding_window:256", n, mode=mode, peak_memory_bytes=900 * n))
    return rows


@pytest.fixture(scope="module")
def example():
    rows = example_rows()
    return analysis.summarize(rows), fits.fit_rows(rows)


def texts(figure):
    found = [*figure.texts]
    for axes in figure.axes:
        found += [t for t in axes.texts if t.get_text()]
        found += [axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def extents(figure):
    renderer = figure.canvas.get_renderer()
    for text in texts(figure):
        box = text
        if isinstance(text, Annotation):
            text.update_positions(renderer)
            box = super(Annotation, text)
        yield text.get_text(), box.get_window_extent(renderer)


@pytest.mark.parametrize("name", ["time", "memory"])
def test_no_text_overlaps_another_or_leaves_the_picture(example, name):
    figure = plots.draw(*example, name, plots.METRICS[name], "a caption")
    figure.canvas.draw()
    boxes = list(extents(figure))
    assert len(boxes) > 30
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        for other, other_box in boxes[i + 1 :]:
            overlap = box.padded(-1).overlaps(other_box.padded(-1))
            assert not overlap, f"{text!r} and {other!r}"
    plt.close(figure)


def lines_of(axes):
    """What tells two curves apart in grayscale."""
    return [
        (
            line.get_marker(),
            str(line.get_linestyle()),
            line.get_fillstyle(),
            str(line._dash_pattern),
        )
        for line in axes.lines
        if line.get_marker() not in ("None", "x")
    ]


def test_curves_differ_without_color(example):
    figure = plots.draw(*example, "time", plots.METRICS["time"], "")
    for axes in figure.axes:
        looks = lines_of(axes)
        assert len(looks) == 7
        same = [look for look in looks if looks.count(look) > 1]
        assert not same
    plt.close(figure)


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_pictures_name_exponents_guides_theory_and_failures(example):
    memory = words(plots.draw(*example, "memory", plots.METRICS["memory"], ""))
    assert "naive  $n^{2.00}$" in memory
    assert "fused sliding_window:256  $n^{1.00}$" in memory
    assert "$n$" in memory and "$n^2$" in memory
    assert any("textbook" in text for text in memory)
    assert "naive: out of memory" in memory
    assert "flex: timed out" in memory
    time = words(plots.draw(*example, "time", plots.METRICS["time"], ""))
    assert not any("textbook" in text for text in time)
    plt.close("all")


def test_the_theory_line_is_the_textbook_for_these_heads_and_this_dtype(example):
    figure = plots.draw(*example, "memory", plots.METRICS["memory"], "")
    theory = [2 * n * n * 8 * 4 for n in NS]
    assert any(list(line.get_ydata()) == theory for line in figure.axes[0].lines)
    plt.close(figure)


@pytest.mark.parametrize(
    "rows",
    [
        [row("naive", status="oom")],
        [row("fused")],
        [row("fused", seq_len=n, peak_memory_bytes=0) for n in NS],
        [row("mine:function", "causal", seq_len=n, time_ms=n) for n in NS],
    ],
    ids=["nothing ran", "one point", "no memory", "someone's own"],
)
def test_odd_results_can_be_drawn(rows, tmp_path):
    plots.draw_all(analysis.summarize(rows), fits.fit_rows(rows), tmp_path, "caption")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("time.png", "time.svg", "memory.png", "memory.svg")
    }


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.9], [0.46, 0.56, 0.9]),
        ([0.5, 0.5, 0.56], [0.42, 0.52, 0.62]),
    ],
)
def test_labels_are_spread_no_more_than_needed(heights, expected):
    assert plots.spread(heights, 0.1) == pytest.approx(expected)


class Loads(HTMLParser):
    """Collects whatever an HTML page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "poster", "action", "style"):
                self.found.append((tag, name, value))


@pytest.fixture
def page(example, tmp_path):
    frame, fitted = example
    plots.draw_all(frame, fitted, tmp_path, "caption")
    return report.write(tmp_path, frame, fitted, PROVENANCE).read_text()


def test_the_report_loads_nothing(page):
    loads = Loads()
    loads.feed(page)
    assert len(loads.found) == 3
    assert all(value.startswith("data:") for _, _, value in loads.found)
    outside = re.sub(r'"data:[^"]*"', "", page)
    assert not re.search(r"https?:|//|@import|url\(|<script", outside)
    assert "default-src 'none'" in page


def test_the_report_says_everything(page):
    for word in ("naive", "fused sliding_window:256", "oom", "timeout", "95 % interval"):
        assert word in page
    assert "A &lt;processor&gt; &amp; more" in page
    assert "--variants &#x27;a&lt;b&#x27;" in page
    assert "<processor>" not in page
