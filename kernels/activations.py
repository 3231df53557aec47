"""Activations and their derivatives in fp32, accurate in the tails as well as around zero.

    none   x Φ(x), the exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)
    tanh   x σ(2u), u = √(2/π) (x + 0.044715 x³): GELU's approximation, as (1 + tanh u)/2 = σ(2u)
    silu   x σ(x)

Neither (1 + erf(x/√2))/2 nor (1 + tanh u)/2 is computed as written: below x = -3 both sums cancel.
Every exponential here has a negative argument, so it cannot overflow; finite x gives finite
results.
"""

import triton
import triton.language as tl

SQRT_8_OVER_PI = tl.constexpr(1.5957691216057308)
INV_SQRT_2PI = tl.constexpr(0.3989422804014327)
CUBIC = tl.constexpr(0.044715)


@triton.jit
def _sigmoids(z):
    """σ(z) and σ(-z), each accurate to fp32's relative precision."""
    e = tl.exp(-tl.abs(z))
    large = 1.0 / (1.0 + e)
    small = e * large
    return tl.where(z < 0, small, large), tl.where(z < 0, large, small)


@triton.jit
def _twice_u(x):
    return (x * x * CUBIC + 1.0) * x * SQRT_8_OVER_PI


@triton.jit
def _normal(x):
    """Φ(x) and exp(-x²/2).

    The tail is Φ(-a) = exp(-a²/2) t P(t) with t = 1 / (1 + 0.26 a).  P minimizes the relative
    error over 0 <= a <= 14.5, beyond which fp32 underflows; the error is 3e-8 in exact arithmetic
    and 5e-6 in fp32.
    """
    a = tl.abs(x)
    e = tl.exp(-0.5 * a * a)
    t = 1.0 / (1.0 + 0.26 * a)
    p = 0.030230146 * t - 0.15149373
    p = p * t + 0.24873185
    p = p * t - 0.1477879
    p = p * t + 0.15875784
    p = p * t + 0.051965185
    p = p * t + 0.1027886
    p = p * t + 0.10305098
    p = p * t + 0.10375702
    tail = e * p * t
    return tl.where(x < 0, tail, 1.0 - tail), e


@triton.jit
def activate(x, KIND: tl.constexpr):
    """The activation of ``x``, fp32."""
    if KIND == "none":
        gate, _ = _normal(x)
    elif KIND == "tanh":
        gate, _ = _sigmoids(_twice_u(x))
    else:
        tl.static_assert(KIND == "silu")
        gate, _ = _sigmoids(x)
    return x * gate


@triton.jit
def activate_with_slope(x, KIND: tl.constexpr):
    """The activation of ``x``, fp32, and its derivative there."""
    if KIND == "none":
        gate, e = _normal(x)
        slope = gate + x * (e * INV_SQRT_2PI)
    elif KIND == "tanh":
        # Beyond 32 the gate is 0 or 1 and its slope 0, but x² may overflow.
        near = tl.minimum(tl.maximum(x, -32.0), 32.0)
        gate, rest = _sigmoids(_twice_u(near))
        slope = gate + gate * rest * near * (near * near * CUBIC * 3.0 + 1.0) * SQRT_8_OVER_PI
        slope += x - x  # NaN for NaN and infinity, as in PyTorch
    else:
        tl.static_assert(KIND == "silu")
        gate, rest = _sigmoids(x)
        slope = gate + gate * rest * x
    return x * gate, slope
