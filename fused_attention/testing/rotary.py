"""Rotary position embedding of q and k, in both conventions, at shuffled positions."""

from functools import partial

import torch

import fused_attention as fa

from .op_case import OpCase, OpProblem

_HEAD_DIM = 128
_TABLES: dict[tuple, tuple[torch.Tensor, torch.Tensor]] = {}


def _inputs(problem: OpProblem):
    """q, k with a quarter as many heads, and shuffled positions.

    q and k are views of (batch, rows, heads, head_dim) tensors.  A hidden size below 128 is one
    head.  Three quarters of the channels of a head are rotated.
    """
    rows, hidden = problem.rows, problem.hidden
    head_dim = min(hidden, _HEAD_DIM)
    heads = hidden // head_dim
    q = problem.normal(1, rows, heads, head_dim).transpose(1, 2)
    k = problem.normal(1, rows, max(1, heads // 4), head_dim, stream=1).transpose(1, 2)
    generator = torch.Generator().manual_seed(problem.seed)
    _tables(q)  # made now, outside what is timed
    return q, k, torch.randperm(rows, generator=generator).to(problem.device)


def _tables(q):
    """cos and sin, in fp32 whatever the dtype of q; they get no gradients."""
    rows, head_dim = q.shape[2:]
    key = rows, head_dim, q.device
    if key not in _TABLES:
        _TABLES[key] = fa.rotary_tables(rows, 2 * (3 * head_dim // 8), device=q.device)
    return _TABLES[key]


def _fused(q, k, positions, interleaved=False):
    return fa.apply_rotary(q, k, *_tables(q), interleaved=interleaved, positions=positions)


def _half_split(q, k, positions):
    """As in the models of Hugging Face."""
    cos, sin = (x[positions].to(q.dtype).repeat(1, 2) for x in _tables(q))
    return tuple(_turn(x, cos, sin, _rotate_half) for x in (q, k))


def _interleaved(q, k, positions):
    """As in GPT-J."""
    tables = _tables(q)
    cos, sin = (x[positions].to(q.dtype).repeat_interleave(2, 1) for x in tables)
    return tuple(_turn(x, cos, sin, _rotate_every_two) for x in (q, k))


def _turn(x, cos, sin, rotate):
    turning, rest = x[..., : cos.shape[1]], x[..., cos.shape[1] :]
    return torch.cat((turning * cos + rotate(turning) * sin, rest), -1)


def _rotate_half(x):
    x1, x2 = x.chunk(2, -1)
    return torch.cat((-x2, x1), -1)


def _rotate_every_two(x):
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


def _numbers(problem: OpProblem) -> int:
    head_dim = min(problem.hidden, _HEAD_DIM)
    heads = problem.hidden // head_dim
    return problem.rows * head_dim * (heads + max(1, heads // 4))


def _flops(problem: OpProblem, backward: bool) -> int:
    """Four products and two sums for each pair of rotated channels, 3/4 of all."""
    return 9 * _numbers(problem) // 4


def _bytes(problem: OpProblem, backward: bool) -> int:
    """q and k are read and written once in either pass; the tables are read once."""
    tables = 4 * problem.rows * 2 * (3 * min(problem.hidden, _HEAD_DIM) // 8)
    return 2 * problem.dtype.itemsize * _numbers(problem) + tables


CASES = (
    OpCase("rotary", _fused, _half_split, _inputs, _flops, _bytes, double_backward=True),
    OpCase(
        name="rotary_interleaved",
        op=partial(_fused, interleaved=True),
        reference=_interleaved,
        make_inputs=_inputs,
        flops=_flops,
        bytes=_bytes,
        double_backward=True,
    ),
)
