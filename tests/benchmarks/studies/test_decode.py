"""`python -m benchmarks decode`: what is measured, reported and drawn.

Seen failing on: the new token not counted, a rival in the stored dtype, page sizes measured for a
cache without pages, totals by the trapezoid rule, the prompt's first tokens compared.
"""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from benchmarks.harness import isolate
from benchmarks.studies.decode import (
    analysis,
    pictures,
    problem,
    providers,
    report,
    run,
    tables,
    worker,
)
from benchmarks.studies.decode.point import DecodePoint

from ..pictures import assert_loads_nothing, assert_readable
from ..test_cli import call

SMALL = DecodePoint("paged", 2, 40, 16, 2, "float32", 4, 16, "float32", "cpu", 0, 3)
FILES = {
    *("results.jsonl", "fits.json", "summary.csv", "provenance.json", "report.html"),
    *("cost.png", "cost.svg", "traffic.png", "traffic.svg"),
}


def measured(monkeypatch, **changes):
    monkeypatch.setattr(worker.memory, "limit_to_available", lambda: None)
    return worker.measure(replace(SMALL, **changes))


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("provider", providers.PROVIDERS)
def test_every_provider_computes_attention(provider, group, monkeypatch):
    page_size = 16 if provider == "paged" else 0
    found = measured(monkeypatch, provider=provider, group=group, page_size=page_size)
    assert found["max_error_ratio"] <= 2
    assert found["tokens_per_s"] == pytest.approx(2e3 / found["time_ms"])
    assert ("speedup" in found) == (provider == "paged")
    assert (found["gbytes_per_s"] is None) == (provider == "recompute")
    rows = {"paged": 48, "contiguous": 41, "recompute": 0}[provider]
    assert found["cache_bytes"] == 2 * 2 * rows * (4 // group) * 16 * 4


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8", "float8_e4m3fn"])
def test_what_is_stored_in_less_is_less_exact(kv_dtype, monkeypatch):
    found = measured(monkeypatch, kv_dtype=kv_dtype)
    assert 10 < found["max_error_ratio"] < 1e7
    assert 0 < found["speedup_low"] <= found["speedup"] <= found["speedup_high"]


def test_a_wrong_cache_stands_out(monkeypatch):
    def forgets(point):
        prepared = providers.paged(point)
        return replace(prepared, call=lambda: prepared.call() * 0.999)

    monkeypatch.setitem(providers.PROVIDERS, "forgets", forgets)
    assert measured(monkeypatch, provider="forgets")["max_error_ratio"] > 100


def test_calls_can_be_repeated():
    for provider in providers.PROVIDERS.values():
        prepared = provider(problem.make_problem(SMALL))
        first = prepared.call()
        assert first.shape == (2, 4, 1, 16)
        assert torch.equal(first, prepared.call())


@pytest.mark.parametrize("kv_dtype", ["int8", "bfloat16"])
def test_a_contiguous_cache_stores_what_the_model_computes_in(kv_dtype):
    point = replace(SMALL, provider="contiguous", kv_dtype=kv_dtype)
    outcome = isolate.run(point.measured_by, point, 60.0, isolate.default_start_method())
    assert outcome.status == "unsupported"
    assert "scaled_dot_product_attention" in outcome.reason


@pytest.mark.parametrize(
    ("kv_dtype", "a_number"), [("float32", 4), ("bfloat16", 2), ("int8", 1), ("float8_e4m3fn", 1)]
)
def test_the_traffic_that_cannot_be_avoided(kv_dtype, a_number):
    scale = 4 if a_number == 1 else 0
    cache = 2 * 2 * 41 * 2 * (16 * a_number + scale)
    assert problem.least_bytes(replace(SMALL, kv_dtype=kv_dtype)) == cache + 2 * (2 * 4 * 16 * 4)


def grid(**changes):
    names = ("providers", "contexts", "batches", "page_sizes", "groups", "kv_dtypes")
    fields = {"device": "cpu", **dict.fromkeys((*names, "heads", "head_dim", "dtype"))}
    return run.DecodeGrid(**(fields | {"seed": 0, "repeats": 0} | changes))


def test_one_thing_is_varied_at_a_time():
    points = grid().points()
    assert len(set(points)) == len(points)
    ours = [p for p in points if p.provider == "paged"]
    assert {p.context for p in ours} == {256, 512, 1024, 2048, 4096}
    base = grid().base()
    for point in ours:
        names = [n for n in analysis.SWEPT if getattr(point, n) != getattr(base, n)]
        assert len(names) == (point.context == 2048 and point not in _curve(ours, base))
    assert {p.batch for p in ours} == {1, 4, 16}
    assert {p.page_size for p in ours} == {16, 64, 256}
    assert {p.group for p in ours} == {1, 4, 8}
    assert {p.kv_dtype for p in ours} == {"float32", "bfloat16", "int8", "float8_e4m3fn"}
    for rival in ("contiguous", "recompute"):
        theirs = [p for p in points if p.provider == rival]
        assert {p.page_size for p in theirs} == {0}
        assert {p.kv_dtype for p in theirs} == {"float32"}
        assert {p.batch for p in theirs} == {1, 4, 16}
    assert [p.size for p in points] == sorted(p.size for p in points)


def _curve(points, base):
    return [p for p in points if replace(base, context=p.context) == p]


def test_on_a_gpu():
    points = grid(device="cuda").points()
    assert {p.dtype for p in points} == {"bfloat16"}
    assert max(p.context for p in points) == 65536
    assert {p.head_dim for p in points} == {128}


def test_what_is_named_replaces_the_defaults():
    points = grid(contexts=(64,), batches=(3,), page_sizes=(32,), groups=(2,), heads=4).points()
    assert {(p.context, p.batch, p.group, p.heads) for p in points} == {(64, 3, 2, 4)}
    assert grid(dtype="bfloat16").base().kv_dtype == "bfloat16"


def row(provider="paged", context=1024, **changes) -> dict:
    content = {
        "provider": provider,
        "batch": 4,
        "context": context,
        "page_size": 64 if provider == "paged" else 0,
        "group": 4,
        "kv_dtype": "float32",
        "status": "ok",
        "reason": None,
        "time_ms": context / 1000,
        "time_ms_p20": 0.9,
        "time_ms_p80": 1.1,
        "repeats": 9,
        "step_ms": 0.05,
        "tokens_per_s": 4000.0,
        "contiguous_ms": 1.0,
        "speedup": 0.9,
        "speedup_low": 0.8,
        "speedup_high": 1.0,
        "gbytes_per_s": 5.0 if provider != "recompute" else None,
        "cache_bytes": 2**20,
        "peak_memory_bytes": 2**20,
        "max_error_ratio": 1.0,
        "heads": 8,
        "head_dim": 64,
        "dtype": "float32",
        "device": "cpu",
    } | changes
    if content["status"] != "ok":
        content |= dict.fromkeys(DecodePoint.numbers)
    return content


BASE = DecodePoint("paged", 4, 256, 64, 4, "float32", 8, 64, "float32", "cpu", 0, 0)
CONTEXTS = (256, 512, 1024, 2048, 4096)
PROVENANCE = {
    "device_name": "A <processor> & more",
    "started": "2026-01-02T03:04:05+00:00",
    "command": "python -m benchmarks decode",
    "conventions": run.CONVENTIONS,
    "gpu": None,
}


def example_rows():
    """Curves that nearly coincide, one that is quadratic, every sweep, a failure."""
    rows = []
    for n in CONTEXTS:
        rows += [row(context=n), row("contiguous", n, time_ms=n / 1050)]
        failed = {"status": "timeout", "reason": "slow"} if n == 4096 else {}
        rows.append(row("recompute", n, time_ms=n * n / 1e4, **failed))
    for name, values in (("batch", (1, 16)), ("group", (1, 8))):
        for value, provider in ((v, p) for v in values for p in ("paged", "contiguous")):
            rows.append(row(provider, 2048, **{name: value}))
    rows += [row(context=2048, page_size=n) for n in (16, 256)]
    rows += [row(context=2048, kv_dtype=d, max_error_ratio=1e4) for d in ("int8", "float8_e4m3fn")]
    return rows


@pytest.fixture(scope="module")
def example():
    frame = analysis.summarize(example_rows(), copy_gbytes_per_s=20.0)
    curves = analysis.curves(frame, BASE)
    return frame, curves, analysis.laws(curves)


def test_curves_are_the_points_of_the_base(example):
    _, curves, laws = example
    assert len(curves) == 15
    exponents = {law["provider"]: law["exponent"] for law in laws}
    assert exponents == pytest.approx({"paged": 1, "contiguous": 1, "recompute": 2})


def test_shares_are_of_a_copy(example):
    frame, _, _ = example
    assert frame.copy_share.dropna().unique().tolist() == [0.25]
    assert frame[frame.provider == "recompute"].copy_share.isna().all()
    assert analysis.summarize([row()], None).copy_share.isna().all()


@pytest.mark.parametrize("power", [0.5, 1, 2, -1])
def test_totals_are_integrals(power):
    """Exact for power laws, from the first context on; before it every token costs the same."""
    frame = analysis.summarize([row(context=n, time_ms=3 * n**power) for n in CONTEXTS], None)
    found = analysis.totals(frame).total_ms.tolist()
    for n, total in zip(CONTEXTS, found, strict=True):
        area = (
            math.log(n / 256)
            if power == -1
            else (n ** (power + 1) - 256 ** (power + 1)) / (power + 1)
        )
        assert total == pytest.approx(3 * area + 256 * 3 * 256**power)


def test_headlines(example):
    frame, _, _ = example
    lines = " ".join(analysis.headlines(frame))
    assert "With 2,048 tokens of context, computing all again takes 205 times as long" in lines
    assert "up to 5 GB/s, 25% of the copy bandwidth" in lines
    assert "0.9 to 0.9 times the speed" in lines
    assert analysis.headlines(frame[frame.provider == "nobody"]) == []


def test_footnotes_name_failures_and_errors_that_storage_does_not_explain(example):
    frame, _, _ = example
    assert len(tables.footnotes(frame)) == 1
    assert (
        "recompute at batch 4, 4,096 tokens, group 4, float32: timeout (slow)"
        in (tables.footnotes(frame)[0])
    )
    wrong = analysis.summarize([row(max_error_ratio=3.0)], None)
    assert "has 3 times the error of naive" in tables.footnotes(wrong)[0]


def draw(name, example, caption="a caption"):
    frame, curves, laws = example
    if name == "cost":
        return pictures.cost(curves, laws, caption)
    return pictures.traffic(frame, BASE, 20.0, caption)


@pytest.mark.parametrize("name", ["cost", "traffic"])
def test_no_text_overlaps_another_or_leaves_the_picture(name, example):
    figure = draw(name, example)
    assert_readable(figure, at_least=20)


def test_curves_differ_without_color(example):
    figure = draw("cost", example)
    for axes in figure.axes:
        looks = [(line.get_marker(), str(line._dash_pattern)) for line in axes.lines]
        looks = [look for look in looks if look[0] != "None"]
        assert len(set(looks)) == len(looks) == 3
    bars = draw("traffic", example).axes[0].patches
    assert {bar.get_hatch() or "" for bar in bars} == {"", "///"}
    plt.close("all")


def test_every_sweep_has_its_bars(example):
    counts = [len(axes.patches) for axes in draw("traffic", example).axes]
    assert counts == [6, 3, 6, 4]  # contiguous: no pages, and one dtype
    plt.close("all")


@pytest.mark.parametrize(
    "rows",
    [
        [row(status="oom")],
        [row()],
        [row("mine:function", n) for n in CONTEXTS],
        [row("recompute", n) for n in CONTEXTS],
    ],
    ids=["nothing ran", "one point", "someone's own", "no traffic"],
)
def test_odd_results_can_be_drawn_and_told(rows, tmp_path):
    frame = analysis.summarize(rows, None)
    curves = analysis.curves(frame, BASE)
    laws = analysis.laws(curves)
    pictures.draw_cost(curves, laws, tmp_path / "cost", "")
    pictures.draw_traffic(frame, BASE, None, tmp_path / "traffic", "")
    page = report.write(tmp_path, frame, laws, PROVENANCE).read_text()
    assert rows[0]["provider"] in page
    assert {path.name for path in tmp_path.iterdir()} == FILES - {
        *("results.jsonl", "fits.json", "summary.csv", "provenance.json")
    }


def test_the_report_says_everything_and_loads_nothing(example, tmp_path):
    frame, curves, laws = example
    pictures.draw_cost(curves, laws, tmp_path / "cost", "")
    pictures.draw_traffic(frame, BASE, 20.0, tmp_path / "traffic", "")
    page = report.write(tmp_path, frame, laws, PROVENANCE).read_text()
    assert_loads_nothing(page)
    for words in ("float8_e4m3fn", "timeout", "25%", "A &lt;processor&gt; &amp; more"):
        assert words in page


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--providers", "pagd"], "--providers"),
        (["--contexts", "8..4"], "--contexts"),
        (["--batches", "0"], "--batches"),
        (["--page-sizes", "24"], "--page-sizes"),
        (["--groups", "3"], "--groups"),
        (["--kv-dtypes", "int4"], "--kv-dtypes"),
        (["--heads", "0"], "--heads"),
        (["--head-dim", "0"], "--head-dim"),
        (["--dtype", "int8"], "--dtype"),
    ],
)
def test_bad_options(words, named, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "decode", *words, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and named in line
    assert not (tmp_path / "out").exists()


def test_a_run_from_the_command_line(cli, tmp_path):
    words = [
        *("--contexts", "16..64", "--batches", "2,1", "--page-sizes", "16", "--groups", "2"),
        *("--kv-dtypes", "fp32,int8", "--heads", "4", "--head-dim", "16", "--repeats", "2"),
    ]
    process = cli("decode", *words, "--out", tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == FILES
    for said in ("paged", "contiguous", "recompute", "int8", "of the copy bandwidth"):
        assert said in out
    again = cli("decode", *words, "--out", tmp_path)
    assert "13 of 13 points are done already." in again.communicate(timeout=120)[0]
