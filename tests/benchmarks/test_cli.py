"""The commands as a user runs them."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as entry
from benchmarks.harness.store import NAME
from benchmarks.studies.attention import options as attention
from benchmarks.studies.scaling import run as scaling

from .points import FAKES

ROOT = Path(__file__).parents[2]
FILES = {
    *("results.jsonl", "fits.json", "summary.csv", "provenance.json", "report.html"),
    *("time.png", "time.svg", "memory.png", "memory.svg"),
}


def call(monkeypatch, *words):
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["scaling", "--providers", "fusd"], "--providers"),
        (["scaling", "--variants", "causal:1"], "--variants"),
        (["scaling", "--model", "gpt9"], "--model"),
        (["scaling", "--dtype", "int8"], "--dtype"),
        (["scaling", "--seq-lens", "8..4"], "--seq-lens"),
        (["scaling", "--mode", "sideways"], "--mode"),
        (["scaling", "--cache", "tepid"], "--cache"),
        (["scaling", "--batch", "0"], "--batch"),
        (["scaling", "--repeats", "-1"], "--repeats"),
        (["scaling", "--timeout", "nan"], "--timeout"),
        (["scaling", "--heads", "many"], "--heads"),
        (["scaling", "--bogus"], "--bogus"),
        (["accuracy", "--heads", "0"], "--heads"),
        (["accuracy", "--variants", ""], "--variants"),
        (["targets", "--seed", "-1"], "--seed"),
        (["gpu", "--budget", "0"], "--budget"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_options_are_refused_in_one_line_before_anything_is_written(
    words, named, monkeypatch, capsys, tmp_path
):
    results = tmp_path / NAME
    results.write_text("precious")
    out = [] if words[0] in ("accuracy", "nonsense") else ["--out", tmp_path]
    assert call(monkeypatch, *words, *out) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert results.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [results]


def test_an_unwritable_out_is_refused(monkeypatch, capsys, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("precious")
    assert call(monkeypatch, "scaling", "--out", blocker) == 2
    assert capsys.readouterr().err.startswith("error: --out: cannot write to ")
    assert blocker.read_text() == "precious"


def test_gpu_refuses_where_there_is_no_device(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert call(monkeypatch, "gpu") == 2
    assert "finds no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["scaling", "decode", "accuracy", "targets", "gpu", "theory"])
def test_help_explains(command, monkeypatch, capsys):
    assert call(monkeypatch, command, "--help") == 0
    assert "--help" in capsys.readouterr().out


NEEDED = ["typer", "rich", "pandas", "matplotlib", "psutil", "scipy"]


@pytest.mark.parametrize("missing", NEEDED)
def test_a_package_that_is_missing_is_one_line(missing, tmp_path):
    """As after an installation without extras; nothing has been measured."""
    words = ["fused-attention", "scaling", "--seq-lens", "16", "--out", str(tmp_path / "results")]
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {words!r}; "
        "from fused_attention.benchmarks.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {missing}")
    assert line.endswith("pip install 'fused-attention[benchmarks]'")
    assert not (tmp_path / "results").exists()


def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.cli", None)
    with pytest.raises(ModuleNotFoundError, match=r"benchmarks\.cli"):
        entry.main()


def test_no_command_prints_help(monkeypatch, capsys):
    call(monkeypatch)
    assert "scaling" in "".join(capsys.readouterr())


def test_theory_prints_the_textbook_table(monkeypatch, capsys):
    assert call(monkeypatch, "theory") == 0
    printed = " ".join(capsys.readouterr().out.split())
    for line in ("512 1 MiB 1", "2,048 16 MiB 16", "8,192 256 MiB 256", "32,768 4 GiB 4,096"):
        assert line in printed
    assert "131,072 64 GiB 65,536" in printed
    assert "two n x n fp16 matrices, the scores and the weights" in printed


SCALING = ("scaling", "--heads", "2", "--head-dim", "16", "--repeats", "2", "--cache", "warm")


def test_scaling_writes_everything_and_tells_how_to_do_it_again(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, *SCALING, "--seq-lens", "64..256", "--out", tmp_path) == 0
    out, err = capsys.readouterr()
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == FILES
    assert "\x1b" not in out + err
    assert "\r" not in out
    assert "[12/12]" in out
    assert "Time, forward+backward (speed-up over naive)" in out
    assert "Exponents" in out
    assert "How far each goes" in out
    assert f"To reproduce: python -m benchmarks {' '.join(SCALING)} --seq-lens 64..256" in out
    assert str(tmp_path.parent) not in (tmp_path / "provenance.json").read_text()
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert {(f["provider"], f["variant"], f["metric"]) for f in fits} == {
        (provider, variant, metric)
        for provider, variant in scaling.DEFAULTS["cpu"].curves
        for metric in ("time", "memory")
    }
    assert all({"mode", "exponent", "ci_low", "ci_high", "points"} <= set(f) for f in fits)


def test_an_interrupt_leaves_a_folder_that_can_be_resumed(cli, monkeypatch, capsys, tmp_path):
    words = [*SCALING, "--providers", f"naive,{FAKES}:sleeps", "--seq-lens", "64,128"]
    words += ["--timeout", "3", "--out", tmp_path]
    process = cli(*words)
    while "naive" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted: run the same command again to go on from here"
    before = (tmp_path / NAME).read_text()
    assert 1 <= len(before.splitlines()) < 4

    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    after = (tmp_path / NAME).read_text()
    assert after.startswith(before)
    rows = [json.loads(line) for line in after.splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 4
    assert {row["status"] for row in rows} == {"ok", "timeout"}
    assert "of 4 points are done already" in out
    assert "64 (timeout)" in out


@pytest.mark.parametrize("written", [0, 1, 3])
@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_keeps_the_rows(full, written, monkeypatch, capsys, tmp_path):
    words = [*SCALING, "--providers", f"naive,{FAKES}:quick", "--seq-lens", "64,128"]
    words += ["--mode", "forward", "--out", tmp_path]
    fsync, calls = os.fsync, []

    def fill(file):
        calls.append(file)
        if len(calls) > written:
            raise OSError(full, os.strerror(full))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        assert call(patch, *words) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: cannot write: {os.strerror(full)}; results so far are kept, "
        "make room and run the same command again to go on from here"
    )
    before = (tmp_path / NAME).read_text()
    assert len(before.splitlines()) == written
    assert call(monkeypatch, *words) == 0
    after = (tmp_path / NAME).read_text()
    assert after.startswith(before) and len(after.splitlines()) == 4
    assert not list(tmp_path.glob("*corrupt*"))


def test_other_faults_of_the_system_are_not_hidden(monkeypatch):
    def fails(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("benchmarks.cli.app", fails)
    with pytest.raises(PermissionError):
        entry.main()


def test_a_model_sets_the_shape():
    gpt2 = attention.model("gpt2")
    assert (gpt2.heads, gpt2.head_dim, gpt2.variant) == (12, 64, "causal")
    llama = attention.model("llama3-8b")
    assert (llama.heads, llama.kv_heads, llama.head_dim, llama.variant) == (32, 8, 128, "causal")
    assert attention.model("bert-base").variant == attention.model("vit-b16").variant == "full"
    assert 197 in attention.model("vit-b16").seq_lens


def grid(**changes):
    content = {
        "device": "cpu",
        "providers": None,
        "variants": None,
        "modes": ("forward+backward",),
        "seq_lens": None,
        "batch": 1,
        "heads": 8,
        "kv_heads": 8,
        "head_dim": 64,
        "dtype": None,
        "seed": 0,
        "repeats": 0,
        "cache": "cold",
    }
    return scaling.ScalingGrid(**{**content, **changes})


def curves(points):
    return {(point.provider, point.variant) for point in points}


def test_defaults_on_a_cpu():
    points = grid().points()
    assert curves(points) == {
        *(("naive", "full"), ("sdpa", "full"), ("fused", "full")),
        ("fused", "sliding_window:256"),
    }
    assert {point.seq_len for point in points} == {256, 512, 1024, 2048, 4096, 8192}
    assert {(p.dtype, p.mode) for p in points} == {("float32", "forward+backward")}
    assert len(points) == 4 * 6


def test_defaults_on_a_gpu():
    points = grid(device="cuda").points()
    pinned = {"sdpa:flash", "sdpa:efficient", "sdpa:cudnn"}
    assert {p for p, _ in curves(points)} == {"naive", "flex", "fused"} | pinned
    assert min(p.seq_len for p in points) == 512
    assert max(p.seq_len for p in points) == 65536
    assert {p.dtype for p in points} == {"bfloat16"}


def test_naming_providers_or_variants_replaces_the_default_curves():
    assert curves(grid(providers=("fused",)).points()) == {("fused", "full")}
    chosen = grid(providers=("fused", "naive"), variants=("causal", "full")).points()
    assert len(curves(chosen)) == 4
    assert curves(grid(variants=("causal",)).points()) == {
        (provider, "causal") for provider in ("naive", "sdpa", "fused")
    }
