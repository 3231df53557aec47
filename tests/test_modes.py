"""The selection of tests by conftest.py, tried on a small suite."""

from pathlib import Path

import pytest
import torch

pytest_plugins = ["pytester"]

INI = "[pytest]\nmarkers =\n    gpu: x\n    interpreter: x\n"
SUITE = """
import pytest

def test_plain(): pass

@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("interpreted", marks=pytest.mark.interpreter),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_kernel(device): pass

@pytest.mark.gpu
def test_needs_more(): pytest.skip("needs two devices")
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pytester.makeini(INI)
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(test_suite=SUITE)
    return pytester


def cuda(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


def test_without_a_device_gpu_tests_are_skipped_and_counted(suite, monkeypatch):
    cuda(monkeypatch, False)
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=2, skipped=2, deselected=1)
    result.stdout.fnmatch_lines(["GPU tests skipped: 2 (no CUDA device)"])


def test_with_a_device_gpu_tests_run(suite, monkeypatch):
    cuda(monkeypatch, True)
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=3, skipped=1, deselected=1)
    result.stdout.fnmatch_lines(["GPU tests skipped: 1 (needs two devices)"])


def test_workers_report_what_they_skipped(suite, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = suite.runpytest_subprocess("-n", "1", "-p", "no:benchmark")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines(["GPU tests skipped: 2 (no CUDA device)"])


def test_interpreted_runs_the_interpreter_tests_alone(suite, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.no_fnmatch_line("GPU tests skipped*")


def test_choosing_the_other_mode_runs_nothing_and_fails(suite):
    result = suite.runpytest_inprocess("-m", "interpreter")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.interpreter
def test_triton_is_interpreted_here():
    knobs = pytest.importorskip("triton.knobs")
    assert knobs.runtime.interpret


def test_triton_is_not_interpreted_here():
    knobs = pytest.importorskip("triton.knobs")
    assert not knobs.runtime.interpret
