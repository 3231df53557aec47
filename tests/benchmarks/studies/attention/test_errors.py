import math

import pytest
import torch

from benchmarks.studies.attention import errors
from benchmarks.studies.attention.inputs import evaluate, make_inputs
from benchmarks.studies.attention.providers import PROVIDERS, Workload
from benchmarks.studies.attention.variants import AttentionShape, parse

SHAPE = AttentionShape(2, 4, 2, 40, 40, 16)


def ratios_of(call, spec="causal", shape=SHAPE, dtype=torch.float32, gradients=True):
    workload = Workload(shape, parse(spec), "forward+backward", dtype, "cpu")
    inputs = make_inputs(shape, dtype, "cpu", seed=1)
    call = call or PROVIDERS["naive"](workload).call
    return errors.ratios(evaluate(call, inputs, gradients), inputs, workload.variants)


def test_naive_costs_what_naive_costs():
    assert ratios_of(None) == {name: pytest.approx(1.0) for name in ("out", "dq", "dk", "dv")}


def test_forward_compares_the_output_alone():
    assert list(ratios_of(None, gradients=False)) == ["out"]


def test_a_wrong_result_stands_out():
    def wrong(q, k, v):
        return (
            PROVIDERS["naive"](Workload(SHAPE, parse("causal"), "forward", q.dtype, "cpu")).call(
                q, k, v
            )
            + 1e-3 * q
        )

    found = ratios_of(wrong)
    assert found["out"] > 100
    assert found["dq"] > 100
    assert found["dv"] == pytest.approx(1.0)


def test_nan_is_infinitely_wrong():
    found = ratios_of(lambda q, k, v: q * math.nan + k.repeat_interleave(2, 1) + v.sum())
    assert found["out"] == math.inf


@pytest.mark.parametrize("spec", ["full", "causal", "sliding_window:100", "causal+softcap:5"])
def test_of_long_sequences_the_last_rows_are_compared(monkeypatch, spec):
    monkeypatch.setattr(errors, "WHOLE_UP_TO", 100)
    monkeypatch.setattr(errors, "ROWS", 16)
    shape = AttentionShape(1, 2, 1, 200, 200, 16)
    found = ratios_of(None, spec, shape)
    assert list(found) == ["out", "dq"]
    assert all(ratio < 4 for ratio in found.values())
    broken = ratios_of(
        lambda q, k, v: (
            PROVIDERS["naive"](Workload(shape, parse(spec), "forward", q.dtype, "cpu")).call(
                q, k, v
            )
            * 1.001
        ),
        spec,
        shape,
    )
    assert all(ratio > 100 for ratio in broken.values())


def test_a_gradient_that_vanishes_is_measured_against_the_others():
    shape = AttentionShape(1, 1, 1, 1, 1, 16)
    found = ratios_of(lambda q, k, v: v + 1e-7 * (q + k), "full", shape)
    assert 0 < found["dq"] < 10
