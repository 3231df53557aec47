"""Normalization: LayerNorm and RMSNorm, alone and after the residual sum."""

import torch
import torch.nn.functional as F

import fused_attention as fa
from fused_attention import philox

from .op_case import OpCase, OpProblem, operations

EPS = 1e-5


def _x_weight(problem: OpProblem):
    rows, hidden, *_ = problem
    return problem.normal(rows, hidden), 1 + problem.normal(hidden, stream=1) / 4


def _x_weight_bias(problem: OpProblem):
    return *_x_weight(problem), problem.normal(problem.hidden, stream=2)


def _with_fp32_parameters(problem: OpProblem):
    x, *parameters = _x_weight_bias(problem)
    wide = torch.promote_types(x.dtype, torch.float32)
    return x, *(p.to(wide) for p in parameters)


def _x_residual_weight(problem: OpProblem):
    x, *parameters = _x_weight(problem)
    return x, problem.normal(*x.shape, stream=3), *parameters


def _x_residual_weight_bias(problem: OpProblem):
    return *_x_residual_weight(problem), problem.normal(problem.hidden, stream=2)


def _with_fp32_residual(problem: OpProblem):
    x, residual, weight = _x_residual_weight(problem)
    return x, residual.to(torch.promote_types(x.dtype, torch.float32)), weight


def _dropped(x, dropout_p):
    """Dropout with the mask of this package for the same generator state."""
    seed = philox.new_seed(x.device)
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    column = torch.arange(x.shape[1], device=x.device)
    kept = philox.keep(seed, 0, 0, row, column, dropout_p)
    return x * kept * philox.inverse_keep(dropout_p)


def _added(norm, dropout_p=0.0):
    """Two calls: the residual sum, then its norm."""

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
    """One of Liger's norms, which take eps as an argument."""

    def norm(x, *parameters):
        from liger_kernel.transformers import functional

        options = {"in_place": False} if "rms" in name else {}
        return getattr(functional, name)(x, *parameters, EPS, **options)

    return norm


def _traffic(forward: int, backward: int):
    """The `bytes` of an op that makes so many passes over a (rows, hidden) tensor."""

    def count(problem: OpProblem, is_backward: bool) -> int:
        passes = backward if is_backward else forward
        return passes * problem.rows * problem.hidden * problem.dtype.itemsize

    return count


CASES = (
    OpCase(
        name="layer_norm",
        op=_norm(fa.layer_norm),
        reference=_norm(F.layer_norm),
        make_inputs=_x_weight_bias,
        flops=operations(8, 14),
        bytes=_traffic(2, 3),
        liger=_liger("liger_layer_norm"),
    ),
    OpCase(
        name="layer_norm_bare",
        op=_bare(fa.layer_norm),
        reference=_bare(F.layer_norm),
        make_inputs=lambda problem: _x_weight(problem)[:1],
        flops=operations(6, 9),
        bytes=_traffic(2, 3),
    ),
    OpCase(
        name="layer_norm_fp32_parameters",
        op=_norm(fa.layer_norm),
        reference=_norm(F.layer_norm),
        make_inputs=_with_fp32_parameters,
        flops=operations(8, 14),
        bytes=_traffic(2, 3),
    ),
    OpCase(
        name="rms_norm",
        op=_norm(fa.rms_norm),
        reference=_norm(F.rms_norm),
        make_inputs=_x_weight,
        flops=operations(4, 10),
        bytes=_traffic(2, 3),
        liger=_liger("liger_rms_norm"),
    ),
    OpCase(
        name="add_layer_norm",
        op=_adding(fa.add_layer_norm),
        reference=_added(F.layer_norm),
        make_inputs=_x_residual_weight_bias,
        flops=operations(9, 15),
        bytes=_traffic(4, 4),
    ),
    OpCase(
        name="add_layer_norm_dropout",
        op=_adding(fa.add_layer_norm, dropout_p=0.3),
        reference=_added(F.layer_norm, dropout_p=0.3),
        make_inputs=_x_residual_weight_bias,
        flops=operations(10, 16),
        bytes=_traffic(4, 5),
    ),
    OpCase(
        name="add_rms_norm",
        op=_adding(fa.add_rms_norm),
        reference=_added(F.rms_norm),
        make_inputs=_x_residual_weight,
        flops=operations(5, 11),
        bytes=_traffic(4, 4),
        liger=_liger("liger_fused_add_rms_norm"),
    ),
    OpCase(
        name="add_rms_norm_fp32_residual",
        op=_adding(fa.add_rms_norm, dropout_p=0.1),
        reference=_added(F.rms_norm, dropout_p=0.1),
        make_inputs=_with_fp32_residual,
        flops=operations(6, 12),
        bytes=_traffic(4, 5),
    ),
)
