"""GELU, exact and by tanh, alone and of a sum with a bias."""

from functools import partial

import torch.nn.functional as F

import fused_attention as fa

from .op_case import Case, Problem


def _input(problem: Problem):
    return (problem.normal(problem.rows, problem.hidden),)


def _input_and_bias(problem: Problem):
    return *_input(problem), problem.normal(problem.hidden, stream=1)


def _bias_gelu(x, bias, approximate="none"):
    return F.gelu(x + bias, approximate=approximate)


def _bytes(problem: Problem, backward: bool) -> int:
    """Forward reads one tensor and writes one; backward reads two and writes one."""
    return (3 if backward else 2) * problem.rows * problem.hidden * problem.dtype.itemsize


def _arithmetic(forward: int, backward: int):
    """So many operations for every number, erf, exp and tanh being one each."""
    return lambda problem, is_backward: (
        (backward if is_backward else forward) * problem.rows * problem.hidden
    )


CASES = (
    Case("gelu", fa.gelu, F.gelu, _input, _arithmetic(5, 11), _bytes),
    Case(
        name="gelu_tanh",
        op=partial(fa.gelu, approximate="tanh"),
        reference=partial(F.gelu, approximate="tanh"),
        make_inputs=_input,
        flops=_arithmetic(8, 18),
        bytes=_bytes,
    ),
    Case("bias_gelu", fa.bias_gelu, _bias_gelu, _input_and_bias, _arithmetic(6, 13), _bytes),
    Case(
        name="bias_gelu_tanh",
        op=partial(fa.bias_gelu, approximate="tanh"),
        reference=partial(_bias_gelu, approximate="tanh"),
        make_inputs=_input_and_bias,
        flops=_arithmetic(9, 20),
        bytes=_bytes,
    ),
)
