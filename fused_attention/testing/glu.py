"""Gated linear units, on the two halves of one projection."""

from functools import partial

import torch.nn.functional as F

import fused_attention as fa

from .op_case import Case, Problem


def _halves(problem: Problem):
    """gate and up."""
    return problem.normal(problem.rows, 2 * problem.hidden).chunk(2, -1)


def _geglu(gate, up, approximate="none"):
    return F.gelu(gate, approximate=approximate) * up


def _swiglu(gate, up):
    return F.silu(gate) * up


def _liger_geglu(gate, up):
    from liger_kernel.ops.geglu import LigerGELUMulFunction

    return LigerGELUMulFunction.apply(gate, up)


def _liger_swiglu(gate, up):
    from liger_kernel.ops.swiglu import LigerSiLUMulFunction

    return LigerSiLUMulFunction.apply(gate, up)


def _bytes(problem: Problem, backward: bool) -> int:
    """Forward reads two tensors and writes one; backward reads three and writes two."""
    return (5 if backward else 3) * problem.rows * problem.hidden * problem.dtype.itemsize


def _arithmetic(forward: int, backward: int):
    """So many operations for every number of a half, erf, exp and tanh being one each."""
    return lambda problem, is_backward: (
        (backward if is_backward else forward) * problem.rows * problem.hidden
    )


CASES = (
    Case("geglu", fa.geglu, _geglu, _halves, _arithmetic(6, 14), _bytes),
    Case(
        name="geglu_tanh",
        op=partial(fa.geglu, approximate="tanh"),
        reference=partial(_geglu, approximate="tanh"),
        make_inputs=_halves,
        flops=_arithmetic(9, 21),
        bytes=_bytes,
        liger=_liger_geglu,
    ),
    Case(
        name="swiglu",
        op=fa.swiglu,
        reference=_swiglu,
        make_inputs=_halves,
        flops=_arithmetic(5, 12),
        bytes=_bytes,
        liger=_liger_swiglu,
    ),
)
