"""Normalisation: LayerNorm and RMSNorm, alone and after the residual sum."""

import torch
import torch.nn.functional as F

import fused_attention as fa
from fused_attention import philox

from .op_case import Case, Problem

EPS = 1e-5


def _x_weight(problem: Problem):
    rows, hidden, *_ = problem
    return problem.normal(rows, hidden), 1 + problem.normal(hidden, stream=1) / 4


def _x_weight_bias(problem: Problem):
    return *_x_weight(problem), problem.normal(problem.hidden, stream=2)


def _with_fp32_parameters(problem: Problem):
    x, *parameters = _x_weight_bias(problem)
    wide = torch.promote_types(x.dtype, torch.float32)
    return x, *(p.to(wide) for p in parameters)


def _x_residual_weight(problem: Problem):
    x, *parameters = _x_weight(problem)
    return x, problem.normal(*x.shape, stream=3), *parameters


def _x_residual_weight_bias(problem: Problem):
    return *_x_residual_weight(problem), problem.normal(problem.hidden, stream=2)


def _with_fp32_residual(problem: Problem):
    x, residual, weight = _x_residual_weight(problem)
    return x, residual.to(torch.promote_types(x.dtype, torch.float32)), weight


def _dropped(x, dropout_p):
    """Dropout that drops what ours drops for the same generator state."""
    seed = philox.new_seed(x.device)
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    column = torch.arange(x.shape[1], device=x.device)
    kept = philox.keep(seed, 0, 0, row, column, dropout_p)
    return x * kept * philox.inverse_keep(dropout_p)


def _added(norm, dropout_p=0.0):
    """The unfused pair: the sum, then the norm of it."""

    def reference(x, residual, weight, *bias):
        total = residual + (_dropped(x, dropout_p) if dropout_p else x)
        parameters = (p.to(total.dtype) for p in (weight, *bias))
        return norm(total, weight.shape, *parameters).to(x.dtype), total

    return reference


def _adding(op, **options):
    return lambda x, residual, weight, *bias: op(
        x, residual, weight.shape, weight, *bias, **options
    )


def _norm(function):
    return lambda x, *parameters: function(x, parameters[0].shape, *parameters)


def _bare(function):
    return lambda x: function(x, x.shape[1:])


def _liger(name: str):
    """A norm of Liger's, which wants eps."""

    def norm(x, *parameters):
        from liger_kernel.transformers import functional

        options = {"in_place": False} if "rms" in name else {}
        return getattr(functional, name)(x, *parameters, EPS, **options)

    return norm


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
        op=_norm(fa.layer_norm),
        reference=_norm(F.layer_norm),
        make_inputs=_x_weight_bias,
        flops=_arithmetic(8, 14),
        bytes=_traffic(2, 3),
        liger=_liger("liger_layer_norm"),
    ),
    Case(
        name="layer_norm_bare",
        op=_bare(fa.layer_norm),
        reference=_bare(F.layer_norm),
        make_inputs=lambda problem: _x_weight(problem)[:1],
        flops=_arithmetic(6, 9),
        bytes=_traffic(2, 3),
    ),
    Case(
        name="layer_norm_fp32_parameters",
        op=_norm(fa.layer_norm),
        reference=_norm(F.layer_norm),
        make_inputs=_with_fp32_parameters,
        flops=_arithmetic(8, 14),
        bytes=_traffic(2, 3),
    ),
    Case(
        name="rms_norm",
        op=_norm(fa.rms_norm),
        reference=_norm(F.rms_norm),
        make_inputs=_x_weight,
        flops=_arithmetic(4, 10),
        bytes=_traffic(2, 3),
        liger=_liger("liger_rms_norm"),
    ),
    Case(
        name="add_layer_norm",
        op=_adding(fa.add_layer_norm),
        reference=_added(F.layer_norm),
        make_inputs=_x_residual_weight_bias,
        flops=_arithmetic(9, 15),
        bytes=_traffic(4, 4),
    ),
    Case(
        name="add_layer_norm_dropout",
        op=_adding(fa.add_layer_norm, dropout_p=0.3),
        reference=_added(F.layer_norm, dropout_p=0.3),
        make_inputs=_x_residual_weight_bias,
        flops=_arithmetic(10, 16),
        bytes=_traffic(4, 5),
    ),
    Case(
        name="add_rms_norm",
        op=_adding(fa.add_rms_norm),
        reference=_added(F.rms_norm),
        make_inputs=_x_residual_weight,
        flops=_arithmetic(5, 11),
        bytes=_traffic(4, 4),
        liger=_liger("liger_fused_add_rms_norm"),
    ),
    Case(
        name="add_rms_norm_fp32_residual",
        op=_adding(fa.add_rms_norm, dropout_p=0.1),
        reference=_added(F.rms_norm, dropout_p=0.1),
        make_inputs=_with_fp32_residual,
        flops=_arithmetic(6, 12),
        bytes=_traffic(4, 5),
    ),
)
