"""Normalisation: LayerNorm and RMSNorm, alone and after the residual sum."""

import torch.nn.functional as F

import fused_attention as fa

from .case import Case, Problem


def _inputs(problem: Problem):
    """x and weight."""
    rows, hidden, *_ = problem
    return problem.normal(rows, hidden), 1 + problem.normal(hidden, stream=1) / 4


def _inputs_and_bias(problem: Problem):
    return *_inputs(problem), problem.normal(problem.hidden, stream=2)


def _layer_norm(function):
    return lambda x, weight, bias: function(x, weight.shape, weight, bias)


def _traffic(forward: int, backward: int):
    """Bytes of so many passes over a (rows, hidden) tensor."""

    def count(problem: Problem, is_backward: bool) -> int:
        passes = backward if is_backward else forward
        return passes * problem.rows * problem.hidden * problem.dtype.itemsize

    return count


def _arithmetic(forward: int, backward: int):
    """So many operations for every number of the input."""

    def count(problem: Problem, is_backward: bool) -> int:
        return (backward if is_backward else forward) * problem.rows * problem.hidden

    return count


CASES = (
    Case(
        name="layer_norm",
        op=_layer_norm(fa.layer_norm),
        reference=_layer_norm(F.layer_norm),
        make_inputs=_inputs_and_bias,
        flops=_arithmetic(8, 14),
        bytes=_traffic(2, 3),
    ),
)
