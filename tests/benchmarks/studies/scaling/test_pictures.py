"""Pictures and report of scaling: complete, readable, and self-contained."""

import re

import matplotlib.pyplot as plt
import pytest

from benchmarks.present import fits
from benchmarks.studies.scaling import analysis, pictures, report

from ...pictures import assert_loads_nothing, assert_readable
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
    return analysis.summarize(rows), analysis.fit_curves(rows)


@pytest.mark.parametrize("name", ["time", "memory"])
def test_no_text_overlaps_another_or_leaves_the_picture(example, name):
    figure = pictures.draw(*example, name, pictures.METRICS[name], "a caption")
    assert_readable(figure, at_least=30)


def lines_of(axes):
    """The looks of the curves, without their colors."""
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
    figure = pictures.draw(*example, "time", pictures.METRICS["time"], "")
    for axes in figure.axes:
        looks = lines_of(axes)
        assert len(looks) == 7
        same = [look for look in looks if looks.count(look) > 1]
        assert not same
    plt.close(figure)


def words(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_pictures_name_exponents_guides_theory_and_failures(example):
    memory = words(pictures.draw(*example, "memory", pictures.METRICS["memory"], ""))
    assert "naive  $n^{2.00}$" in memory
    assert "fused sliding_window:256  $n^{1.00}$" in memory
    assert "$n$" in memory and "$n^2$" in memory
    assert any("textbook" in text for text in memory)
    assert "naive: out of memory" in memory
    assert "flex: timed out" in memory
    time = words(pictures.draw(*example, "time", pictures.METRICS["time"], ""))
    assert not any("textbook" in text for text in time)
    plt.close("all")


def test_the_theory_line_is_the_textbook_for_these_heads_and_this_dtype(example):
    figure = pictures.draw(*example, "memory", pictures.METRICS["memory"], "")
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
    pictures.draw_all(analysis.summarize(rows), analysis.fit_curves(rows), tmp_path, "caption")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("time.png", "time.svg", "memory.png", "memory.svg")
    }


@pytest.fixture
def page(example, tmp_path):
    frame, fitted = example
    pictures.draw_all(frame, fitted, tmp_path, "caption")
    return report.write(tmp_path, frame, fitted, PROVENANCE).read_text()


def test_the_report_loads_nothing(page):
    assert_loads_nothing(page)
    outside = re.sub(r'"data:[^"]*"', "", page)
    assert not re.search(r"https?:|//|@import|url\(|<script", outside)
    assert "default-src 'none'" in page


def test_the_report_says_everything(page):
    for word in ("naive", "fused sliding_window:256", "oom", "timeout", "95 % interval"):
        assert word in page
    assert "A &lt;processor&gt; &amp; more" in page
    assert "--variants &#x27;a&lt;b&#x27;" in page
    assert "<processor>" not in page
