"""Soft capping of scores, ``cap * tanh(s / cap)`` (Gemma 2, Grok)."""

import math

import torch

from .._triton import jit, tl
from .base import Variant, define_variant


@jit
def _decay(x):
    """exp(-2 |x|)."""
    return tl.exp2(tl.abs(x) * -2.8853900817779268)  # -2 * log2(e)


@jit
def _tanh(x):
    # The formula with exp2 cancels near zero; below 0.45 the series is accurate to fp32.
    t = x * x
    series = 21844 / 6081075
    series = series * t - 1382 / 155925
    series = series * t + 62 / 2835
    series = series * t - 17 / 315
    series = series * t + 2 / 15
    series = series * t - 1 / 3
    series = x + x * t * series
    e = _decay(x)
    far = (1 - e) / (1 + e)
    return tl.where(tl.abs(x) < 0.45, series, tl.where(x < 0, -far, far))


@jit
def _score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return args[0] * _tanh(s / args[0])


@jit
def _score_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    # 1 - tanh² in this form keeps its digits where tanh is close to one.
    e = _decay(s_in / args[0])
    return ds * (4 * e / ((1 + e) * (1 + e)))


# On Intel CPUs, ATen's tanh uses MKL and takes 0.3 times as long as its expm1; on other CPUs it
# takes 2.5 times as long.  Both are accurate near zero.
_CPU = getattr(torch.cpu, "get_capabilities", dict)()  # missing in torch 2.11
_TANH_IS_FAST = "Intel" in _CPU.get("cpu_name", "")


def _torch_score(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    cap = args[0]
    if _TANH_IS_FAST or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.tanh(s / cap) * cap
    e = (s * (2 / cap)).clamp_(-40, 40).expm1_()  # beyond, tanh is 1 even in fp64
    return e.div_(torch.add(e.new_tensor(2 / cap), e, alpha=1 / cap))  # cap * e / (e + 2)


def _torch_score_grad(ds, s_in, s_out, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return ds / (s_in / args[0]).cosh_().square_()


_SOFTCAP = define_variant(
    "softcap",
    score=_score,
    torch_score=_torch_score,
    score_grad=_score_grad,
    torch_score_grad=_torch_score_grad,
)


def softcap(cap: float) -> Variant:
    """Soft cap of the scaled scores: ``cap * tanh(s / cap)``, which lies in (-cap, cap).

    Raises TypeError if ``cap`` is not a number, ValueError unless it is positive and finite.
    """
    if isinstance(cap, bool) or not isinstance(cap, (int, float)):
        raise TypeError(f"cap: expected a number, got {type(cap).__name__}")
    if not 0 < cap < math.inf:
        raise ValueError(f"cap: expected a positive finite number, got {cap}")
    return _SOFTCAP(float(cap))
