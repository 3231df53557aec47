"""ALiBi: scores fall off linearly with distance (Press et al. 2022, arXiv 2108.12409)."""

import torch

from .._triton import jit, tl
from ..plain import check_plain
from .base import Shape, Variant, define_variant


@jit
def _distance(q_idx, kv_idx):
    return tl.abs(q_idx - kv_idx).to(tl.float32)


@jit
def _score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    pointer, stride_b, stride_h, stride_q, stride_k = args[0]
    slope = tl.load(pointer + b * stride_b + h * stride_h).to(tl.float32)
    return s - slope * _distance(q_idx, kv_idx)


@jit
def _slope_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return -ds * _distance(q_idx, kv_idx)


def _torch_score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s - args[0].to(s.dtype) * (q_idx - kv_idx).abs()


def _torch_slope_grad(ds, s_in, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return -ds * (q_idx - kv_idx).abs()


def _check(args, shape: Shape):
    (slopes,) = args
    if slopes.shape[1] != shape.num_heads or slopes.shape[0] not in (1, shape.batch):
        raise ValueError(
            f"slopes: expected shape ({shape.num_heads},) or ({shape.batch}, {shape.num_heads}), "
            f"one per query head, got {tuple(slopes.shape[:2])}"
        )
    if slopes.device != shape.device:
        raise ValueError(f"slopes: expected device {shape.device}, got {slopes.device}")


_ALIBI = define_variant(
    "alibi",
    score=_score,
    torch_score=_torch_score,
    additive=True,
    arg_grad=_slope_grad,
    torch_arg_grad=_torch_slope_grad,
    check=_check,
)


def alibi(slopes: torch.Tensor) -> Variant:
    """Linear bias ``-slope[h] * |i - j|``, as in flash-attn; the paper's under a causal mask.

    ``slopes``: floating tensor, shape (heads,) or (batch, heads), a slope per query head, on the
    device of the inputs; it can receive a gradient.  i and j are positions in key coordinates.
    `alibi_slopes` gives the paper's geometric sequence.

    Raises TypeError if ``slopes`` is not a floating tensor, ValueError if its shape or device
    does not fit.
    """
    check_plain("slopes", slopes)
    if not slopes.is_floating_point():
        raise TypeError(f"slopes: expected a floating dtype, got {slopes.dtype}")
    if slopes.ndim not in (1, 2):
        raise ValueError(
            f"slopes: expected shape (heads,) or (batch, heads), got {tuple(slopes.shape)}"
        )
    return _ALIBI((slopes if slopes.ndim == 2 else slopes[None])[:, :, None, None])


def alibi_slopes(num_heads: int, device: torch.device | str | None = None) -> torch.Tensor:
    """The ALiBi paper's slopes, fp32, shape (num_heads,): ``2**(-8i/n)`` for i = 1..n.

    If n is not a power of two: the slopes of the next lower power of two, then every other slope
    of the next higher one, as in the paper.  Raises ValueError if ``num_heads`` is not positive.
    """
    if num_heads < 1:
        raise ValueError(f"num_heads: expected a positive int, got {num_heads}")
    below = 1 << (num_heads.bit_length() - 1)
    exponents = [-8 * i / below for i in range(1, below + 1)]
    exponents += [-4 * i / below for i in range(1, 2 * below, 2)][: num_heads - below]
    return torch.tensor([2.0**e for e in exponents], dtype=torch.float32, device=device)
