"""GELU, exact and by tanh, alone and of a sum with a bias."""

from functools import partial

import torch.nn.functional as F

import fused_attention as fa

from .op_case import OpCase, OpProblem, operations


def _input(problem: OpProblem):
    return (problem.normal(problem.rows, problem.hidden),)


def _input_and_bias(problem: OpProblem):
    return *_input(problem), problem.normal(problem.hidden, stream=1)


def _bias_gelu(x, bias, approximate="none"):
    return F.gelu(x + bias, approximate=approximate)


def _bytes(problem: OpProblem, backward: bool) -> int:
    """Forward reads one tensor and writes one; backward reads two and writes one."""
    return (3 if backward else 2) * problem.rows * problem.hidden * problem.dtype.itemsize


CASES = (
    OpCase("gelu", fa.gelu, F.gelu, _input, operations(5, 11), _bytes),
    OpCase(
        name="gelu_tanh",
        op=partial(fa.gelu, approximate="tanh"),
        reference=partial(F.gelu, approximate="tanh"),
        make_inputs=_input,
        flops=operations(8, 18),
        bytes=_bytes,
    ),
    OpCase("bias_gelu", fa.bias_gelu, _bias_gelu, _input_and_bias, operations(6, 13), _bytes),
    OpCase(
        name="bias_gelu_tanh",
        op=partial(fa.bias_gelu, approximate="tanh"),
        reference=partial(_bias_gelu, approximate="tanh"),
        make_inputs=_input_and_bias,
        flops=operations(9, 20),
        bytes=_bytes,
    ),
)
