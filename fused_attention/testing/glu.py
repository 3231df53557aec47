"""Gated linear units, on the two halves of one projection."""

from functools import partial

import torch.nn.functional as F

import fused_attention as fa

from .op_case import OpCase, OpProblem, operations


def _halves(problem: OpProblem):
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


def _bytes(problem: OpProblem, backward: bool) -> int:
    """Forward reads two tensors and writes one; backward reads three and writes two."""
    return (5 if backward else 3) * problem.rows * problem.hidden * problem.dtype.itemsize


CASES = (
    OpCase("geglu", fa.geglu, _geglu, _halves, operations(6, 14), _bytes),
    OpCase(
        name="geglu_tanh",
        op=partial(fa.geglu, approximate="tanh"),
        reference=partial(_geglu, approximate="tanh"),
        make_inputs=_halves,
        flops=operations(9, 21),
        bytes=_bytes,
        liger=_liger_geglu,
    ),
    OpCase(
        name="swiglu",
        op=fa.swiglu,
        reference=_swiglu,
        make_inputs=_halves,
        flops=operations(5, 12),
        bytes=_bytes,
        liger=_liger_swiglu,
    ),
)
