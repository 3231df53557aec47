"""`python -m benchmarks model`: what is measured, reported and drawn.

Seen failing on: the prompt counted among the generated tokens, a rival of the other task as the
base of a speed-up, attention that is always fused.
"""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import fused_attention
from benchmarks.harness.provenance import measured_files
from benchmarks.studies.model import analysis, pictures, report, run, worker
from benchmarks.studies.model.point import BASELINE, PROVIDERS, TASKS, ModelPoint
from fused_attention.models.backends import BACKENDS

from ..pictures import assert_loads_nothing, assert_readable
from ..test_cli import call

SMALL = ModelPoint("fused", "train", 24, "tiny", 2, 5, "float32", "cpu", 0, 2)
FILES = {
    *("results.jsonl", "summary.csv", "provenance.json", "report.html"),
    *("speed.png", "speed.svg", "memory.png", "memory.svg"),
}


def measured(monkeypatch, **changes):
    monkeypatch.setattr(worker.memory, "limit_to_available", lambda: None)
    return worker.measure(replace(SMALL, **changes))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_tokens_are_counted_and_the_attention_asked_for_is_used(provider, task, monkeypatch):
    used = set()
    for name, attention in list(BACKENDS.items()):
        monkeypatch.setitem(
            BACKENDS,
            name,
            lambda *given, name=name, attention=attention, **options: (
                used.add(name) or attention(*given, **options)
            ),
        )
    found = measured(monkeypatch, provider=provider, task=task)
    counted = 2 * 24 if task == "train" else 2 * 5
    assert found["tokens_per_s"] == pytest.approx(counted / found["time_ms"] * 1e3)
    assert found["repeats"] == 2
    paged = (provider, task) == ("fused", "generate")
    assert used == (set() if paged else {provider}) | {BASELINE}
    assert ("speedup" in found) == (provider != BASELINE)


def test_time_is_beside_that_of_naive_attention_in_turns(monkeypatch):
    said = []
    monkeypatch.setitem(BACKENDS, "naive", lambda *given, **options: slow(*given, **options))

    def slow(q, k, v, variants, *, dropout_p):
        said.append("naive")
        time.sleep(0.02)
        return BACKENDS["sdpa"](q, k, v, variants, dropout_p=dropout_p)

    found = measured(monkeypatch, repeats=7)
    assert len(said) == (7 + 1) * 2  # rounds and the first call, layers
    assert found["naive_ms"] > found["time_ms"] + 20
    assert 1 < found["speedup_low"] <= found["speedup"] <= found["speedup_high"]


def test_where_naive_runs_out_of_memory_ours_is_measured_alone(monkeypatch):
    def beyond(*given, **options):
        raise MemoryError

    monkeypatch.setitem(BACKENDS, "naive", beyond)
    found = measured(monkeypatch)
    assert found["time_ms"] > 0 and "speedup" not in found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_train_the_same_model_on_the_same_tokens(dtype, monkeypatch):
    losses = [measured(monkeypatch, provider=p, dtype=dtype)["loss"] for p in PROVIDERS]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5 if dtype == "float32" else 1e-3)
    assert 6 < losses[0] < 6.5  # log 512 = 6.24
    assert measured(monkeypatch, seed=1)["loss"] != losses[0]


def test_all_generate_the_same_tokens():
    tokens = worker.make_tokens(SMALL)
    found = [worker.generation(SMALL)(tokens, provider) for provider in PROVIDERS]
    assert found[0] == found[1] == found[2]
    assert [len(said) for said in found[0]] == [5, 5]


def test_a_step_is_a_step():
    step = worker.training(SMALL)
    tokens = worker.make_tokens(SMALL)
    losses = [step(tokens, "fused") for _ in range(40)]
    assert losses[-1] < losses[0] - 0.05


def row(provider="fused", task="train", seq_len=256, **changes) -> dict:
    content = {
        "key": f"{provider} {task} {seq_len}",
        "config": "c",
        "provider": provider,
        "task": task,
        "seq_len": seq_len,
        "status": "ok",
        "reason": None,
        "time_ms": 1.0,
        "time_ms_p20": 0.9,
        "time_ms_p80": 1.1,
        "repeats": 5,
        "naive_ms": 3.0,
        "speedup": 3.0,
        "speedup_low": 2.8,
        "speedup_high": 3.2,
        "tokens_per_s": 256e3,
        "peak_memory_bytes": 2**20,
        "loss": 10.8 if task == "train" else None,
        "shape": "gpt2-small",
        "batch": 1,
        "new_tokens": 8,
        "dtype": "float32",
        "device": "cpu",
    } | changes
    if content["status"] != "ok":
        content |= dict.fromkeys(ModelPoint.numbers)
    return content


def test_memory_is_beside_naive_of_the_same_task_and_length():
    frame = analysis.summarize(
        [
            row(),
            row("naive", peak_memory_bytes=2**22, tokens_per_s=100e3, speedup=None),
            row("naive", "generate", peak_memory_bytes=2**29),
            row("naive", seq_len=512, peak_memory_bytes=2**30),
            row("sdpa", seq_len=1024, speedup=None),
        ]
    )
    ours = frame[frame.provider == "fused"].iloc[0]
    assert (ours.speedup, ours.memory_saving, ours.rate) == (3, 4, 300e3)
    beyond = frame[frame.provider == "sdpa"].iloc[0]
    assert pd.isna(beyond.memory_saving) and beyond.rate == 256e3
    (line,) = analysis.headlines(frame)
    assert line == (
        "At n = 256, train has 3 times the speed and 1/4 of the memory of naive attention."
    )


@pytest.fixture
def example():
    rows = [
        row(p, task, n, tokens_per_s=scale * n**-0.4, peak_memory_bytes=2**14 * n / scale)
        for (p, scale), task, n in itertools.product(
            [("fused", 3e4), ("sdpa", 2.9e4), ("naive", 1e4)], TASKS, [128, 256, 512, 1024]
        )
    ]
    rows.append(row("naive", "train", 2048, status="oom", reason="too <much>"))
    return analysis.summarize(rows)


@pytest.mark.parametrize("metric", pictures.METRICS)
def test_no_text_overlaps_another_or_leaves_the_picture(metric, example):
    figure = pictures.draw(example, pictures.METRICS[metric], "a caption")
    assert_readable(figure, at_least=20)


@pytest.mark.parametrize("rows", [[row(status="oom")], [row()]], ids=["nothing ran", "one point"])
def test_odd_results_can_be_told(rows, tmp_path):
    frame = analysis.summarize(rows)
    drawn = pictures.draw_all(frame, tmp_path, "caption")
    analysis.headlines(frame)
    report.write(tmp_path, frame, drawn, provenance())


def provenance():
    told = {"device_name": "A <processor>", "started": "2026-01-02", "command": "do 'a<b'"}
    return {**told, "conventions": run.CONVENTIONS}


def test_the_report_loads_nothing_and_says_everything(example, tmp_path):
    drawn = pictures.draw_all(example, tmp_path, "caption")
    page = report.write(tmp_path, example, drawn, provenance()).read_text()
    assert_loads_nothing(page)
    for word in ("A &lt;processor&gt;", "too &lt;much&gt;", "generate", "paged cache", "sdpa"):
        assert word in page


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--providers", "flash"], "--providers"),
        (["--tasks", "dream"], "--tasks"),
        (["--shape", "gpt9"], "--shape"),
        (["--seq-lens", "8..4"], "--seq-lens"),
        (["--batch", "0"], "--batch"),
        (["--new-tokens", "0"], "--new-tokens"),
        (["--dtype", "float64"], "--dtype"),
    ],
)
def test_bad_options_are_refused_in_one_line(words, named, monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "model", *words, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and named in line
    assert not (tmp_path / "out").exists()


def test_the_command_writes_everything_and_resumes(monkeypatch, capsys, tmp_path):
    words = ["model", "--shape", "tiny", "--seq-lens", "16,32", "--providers", "fused,naive"]
    words += ["--repeats", "2", "--new-tokens", "2", "--out", tmp_path]
    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == FILES
    for text in ("[8/8]", "over naive", "At n = 32, train has", "At n = 32, generate has"):
        assert text in out
    found = json.loads((tmp_path / "provenance.json").read_text())
    assert found["conventions"] == run.CONVENTIONS
    before = (tmp_path / "results.jsonl").read_text()
    assert call(monkeypatch, *words) == 0
    assert (tmp_path / "results.jsonl").read_text() == before


def test_defaults():
    asked = dict.fromkeys(("providers", "seq_lens", "batch", "new_tokens", "dtype"))
    grid = run.ModelGrid("cpu", tasks=TASKS, shape="gpt2-small", seed=0, repeats=0, **asked)
    points = grid.points()
    assert len(points) == 3 * 2 * 3 and {p.dtype for p in points} == {"float32"}
    assert [p.seq_len for p in points] == sorted(p.seq_len for p in points)
    on_gpu = replace(grid, device="cuda").points()
    assert max(p.seq_len for p in on_gpu) == 8192 and {p.dtype for p in on_gpu} == {"bfloat16"}
    model = worker.make_model(replace(points[0], shape="gpt2-small", device="meta"))
    assert sum(p.numel() for p in model.parameters()) == 124_439_808  # the small GPT-2


def test_whatever_the_model_runs_is_part_of_the_fingerprint():
    root = Path(fused_attention.__file__).parent
    files = {path.relative_to(root).as_posix() for path in measured_files(root)}
    for name in (
        "models/gpt.py",
        "generation/generate.py",
        "modules/mlp.py",
        "benchmarks/studies/model/worker.py",
    ):
        assert name in files
